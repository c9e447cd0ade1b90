// Text inside PNG files: written into encoded pictures, read back from files of any origin.
//
//   std::string png = png_with_metadata(encoded, {.parameters = "a lighthouse\nSteps: 4, Seed: 7"});
//   auto texts = png_texts(png, "picture.png");      // texts["parameters"] == "a lighthouse\nSteps: 4, Seed: 7"
//
// Pure functions, any thread. Chunk layout: PNG specification, third edition, 11.3.3.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "image/metadata.h"

namespace calotype::image {

/// The texts of metadata.h, right after the header, where readers find them before any pixels. ASCII becomes tEXt, all
/// else iTXt (UTF-8). `png` is what an encoder returned.
std::string png_with_metadata(std::string_view png, const Metadata& metadata);

/// Keyword → text as UTF-8; of equal keywords the last counts. For hostile files: a text chunk that is malformed, above
/// kMaxText or of which the file's compressed texts together exceed 1 MiB unpacked is left out; a chunk that does not
/// fit into the file or whose checksum differs is corrupt_file naming `source`, more than 100 texts are bad_input.
/// Pixels are not looked at.
std::map<std::string, std::string, std::less<>> png_texts(std::string_view png, std::string_view source);

/// For decoders: corrupt_file unless every chunk fits into the file, bad_input above 100 texts. libvips 8.14 with
/// libpng takes 1.9 GB for a file of 300 bytes with a chunk that claims as much, and 27 ms for each text of 7 kB that
/// unpacks to 7 MB.
void check_png(std::string_view png, std::string_view source);

}  // namespace calotype::image
