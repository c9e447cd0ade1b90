// What a generated picture says about itself: the settings that made it, for people and programs, and that a model made
// it. One Metadata goes into PNG (png_metadata.h), JPEG and WebP (here) in the places where other programs look.
//
//   const Metadata made{.parameters = "a lighthouse\nSteps: 4", .settings_json = R"({"seed":7})", .software =
//   "Calotype"}; std::string bytes = encode(picture, {.format = Format::jpeg, .metadata = made});
//
//   field           in PNG              in JPEG and WebP
//   parameters      text `parameters`   EXIF UserComment, "UNICODE\0" + UTF-16BE
//   settings_json   text `calotype`     XMP property `settings` of kSettingsNamespace
//   software        text `Software`     EXIF Software
//   ai_generated    XMP property Iptc4xmpExt:DigitalSourceType = kAiGenerated, everywhere
//
// Pure functions, any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace calotype::image {

/// Texts are UTF-8 of at most kMaxText bytes; NUL characters and broken UTF-8 become U+FFFD in the file.
struct Metadata {
  std::string parameters{};     ///< prompt and settings as lines of text, laid out as other web interfaces read them
  std::string settings_json{};  ///< the same, complete and for programs
  std::string software{};       ///< name and version of the writer
  bool ai_generated = true;     ///< made by a model; clear it only for pictures that are not
};

constexpr size_t kMaxText = size_t{4} << 20;
constexpr std::string_view kSettingsNamespace = "urn:calotype:";
constexpr std::string_view kAiGenerated = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";

/// The metadata with texts made valid (see Metadata). bad_input names a text that is too long.
Metadata cleaned(const Metadata& metadata);

/// XMP packet (ISO 16684-1) with the AI tag and, when given, the settings; "" when it would say nothing.
std::string xmp_packet(const Metadata& metadata, std::string_view settings_json);

/// Metadata put into an encoded JPEG that has none. A JPEG segment holds 64 kB: longer parameters are cut and end
/// with "…", longer settings are left out.
std::string jpeg_with_metadata(std::string_view jpeg, const Metadata& metadata);

/// Metadata put into an encoded WebP of width × height pixels without alpha, in place of what else stood in it.
std::string webp_with_metadata(std::string_view webp, const Metadata& metadata, int width, int height);

}  // namespace calotype::image
