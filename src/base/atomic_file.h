// A file that appears complete or not at all: written beside its place, fsynced, then renamed.
//
//   AtomicFile out("picture.png");
//   out.write(bytes);
//   out.commit();            // without it the destructor removes the temporary file
//
// A process that is killed leaves "picture.png.partial-" and six characters. One thread at a time. Errors (no folder,
// read-only, …) are Error with the path and the system's reason; a disk without space is of kind disk_full.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace calotype::base {

class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Bytes written so far.
  uint64_t size() const { return size_; }
  /// Data and name are durable when this returns.
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

/// Whole small files in one call.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// Reads a whole file of at most `limit` bytes; larger ones are an Error that names the limit.
std::string read_file(const std::filesystem::path& path, uint64_t limit);

}  // namespace calotype::base
