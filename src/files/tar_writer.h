// Packs files into a tar archive.
//
//   write_tar("trained_model.tar", {{.name = "output/lora.safetensors", .file = "tok.safetensors"},
//                                   {.name = "output/captions/cat.txt", .bytes = "a cat"}});
//
// Thread-safe. Format: GNU tar, with names in UTF-8; owner and times are zero, so that the same content
// gives the same bytes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace calotype::files {

struct TarEntry {
  std::string name;            ///< path inside the archive, "/" between folders
  std::filesystem::path file;  ///< its content, or
  std::string bytes;           ///< this where `file` is empty
};

/// The archive appears whole or not at all. Errors: not_found for an entry's file; those of writing, naming the archive.
void write_tar(const std::filesystem::path& path, const std::vector<TarEntry>& entries);

}  // namespace calotype::files
