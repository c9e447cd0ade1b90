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
/// fit into the file or whose checksum differs is corrupt_file naming `source`. Pixels are not looked at.
std::map<std::string, std::string, std::less<>> png_texts(std::string_view png, std::string_view source);

/// Text chunks, in whatever state, before the first that does not fit into the file.
size_t count_png_texts(std::string_view png);

}  // namespace calotype::image
