// A file in memory without reading it: pages come from the disk when touched and may leave again.
//
//   auto file = MappedFile::open("model.safetensors");
//   parse(file->bytes());
//
// Immutable and thread-safe. The bytes live as long as the object. A file that another program truncates meanwhile
// ends the process (SIGBUS): models are replaced by rename, not overwritten in place.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace calotype::files {

class MappedFile {
 public:
  /// Errors: not_found, bad_input (folder, device, no permission), corrupt_file (empty).
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

  /// Tells the system that these bytes will not be read again soon, so that they stop counting as our memory.
  void release(std::span<const std::byte> part) const;

 private:
  MappedFile(std::filesystem::path path, std::span<const std::byte> bytes) : path_(std::move(path)), bytes_(bytes) {}
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace calotype::files
