// What cmake/Embed.cmake makes of the files of this folder.
#pragma once

#include <cstddef>
#include <span>

namespace calotype::web {

struct EmbeddedFile {
  const char* name;  ///< "index.html"
  const unsigned char* bytes;
  size_t size;
  const char* tag;  ///< begin of the SHA-256 of the bytes, hexadecimal
};

std::span<const EmbeddedFile> embedded_files();

}  // namespace calotype::web
