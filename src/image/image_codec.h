// Pictures from and to encoded files, through libvips: whatever comes in leaves decode() as upright 8-bit sRGB.
//
//   RgbImage photo = decode("IMG_0042.HEIC");
//   base::write_file("out.webp", encode(photo, {.format = Format::webp, .quality = 80}));
//
// Thread-safe; the first call starts libvips (once per process, about 20 ms) with its caches off, its warnings kept off
// stderr and every loader blocked that libvips calls unfit for foreign files (SVG, PDF, ImageMagick, …). One part still
// prints: dav1d, which decodes AVIF, complains about damaged streams on stderr and offers no switch through libvips.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "image/metadata.h"
#include "image/rgb_image.h"

namespace calotype::image {

enum class Format { png, jpeg, webp, tiff, gif, heif };

/// "png", "jpeg", "webp", "tiff", "gif", "heif" (which stands for HEIC and AVIF).
std::string_view name(Format format);
/// "image/png", …
std::string_view media_type(Format format);
/// By such a name or by a usual file extension without its dot ("jpg", "tif", "heic", "avif"), in lower case.
std::optional<Format> format_from_name(std::string_view name);
/// By the first bytes, never by a file's name; nothing for what decode() does not read.
std::optional<Format> format_from_content(std::span<const std::byte> bytes);

struct DecodeOptions {
  int64_t max_pixels = 178'000'000;  ///< width × height; refused after the header, before pixels take memory
  uint64_t max_bytes = 1 << 30;      ///< of a file read by path
  std::array<uint8_t, 3> background = {255, 255, 255};  ///< sRGB, where the picture is transparent
};

struct PictureHeader {
  Format format = Format::png;
  int width = 0, height = 0;  ///< pixels, upright: as decode() returns them
  int bands = 0;              ///< channels as stored, with alpha; palettes count as what they expand to
  int orientation = 1;        ///< EXIF, 1 to 8, already accounted for in width and height
  int pages = 1;              ///< frames of an animation, pages of a TIFF
  bool has_alpha = false, has_profile = false;
};

/// Width, height and the like without decoding pixels. Errors as for decode(); `source` names the bytes in them.
PictureHeader read_header(std::span<const std::byte> bytes, std::string_view source, const DecodeOptions& options = {});
PictureHeader read_header(const std::filesystem::path& path, const DecodeOptions& options = {});

/// The picture turned upright (EXIF), converted to sRGB (embedded ICC profile; an unusable one is ignored; CMYK without
/// one is taken as a common offset press), flattened on the background, 8 bits (16 lose the low byte); of animations
/// and pages the first. Errors: corrupt_file for damaged, cut off, empty; bad_input for what is not a picture and for
/// too many pixels; unsupported for channels that are no colours; for paths also those of base::read_file().
RgbImage decode(std::span<const std::byte> bytes, std::string_view source, const DecodeOptions& options = {});
RgbImage decode(const std::filesystem::path& path, const DecodeOptions& options = {});

/// A picture that marks a part of another: white where it is transparent if it is anywhere (OpenAI's masks), otherwise
/// itself (white marks). `background` plays no part. Errors as for decode().
RgbImage decode_mask(std::span<const std::byte> bytes, std::string_view source, DecodeOptions options = {});
RgbImage decode_mask(const std::filesystem::path& path, const DecodeOptions& options = {});

struct EncodeOptions {
  Format format = Format::png;  ///< png, jpeg or webp, others are unsupported
  int quality = 90;             ///< 1 to 100; JPEG (without chroma subsampling) and WebP, where 100 is lossless
  Metadata metadata = {};       ///< marks the picture as made by a model unless told otherwise
};

/// The bytes of a picture file; the same input gives the same bytes. JPEG takes sides up to 65500, WebP up to 16383.
std::string encode(const RgbImage& image, const EncodeOptions& options = {});

}  // namespace calotype::image
