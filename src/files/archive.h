// Zip and tar archives from strangers, read entry by entry without unpacking anything by itself.
//
//   ArchiveReader archive("photos.zip");
//   while (const std::optional<ArchiveEntry> entry = archive.next()) {
//     if (!entry->refusal.empty()) { report(entry->name, entry->refusal); continue; }
//     const std::string damage = archive.unpack([&](std::span<const std::byte> block) { hash.update(block); });
//   }
//
// What a file is decides its content, never its name. Two kinds of trouble: an entry with an unsafe name, of an unsafe
// kind, encrypted or damaged is handed out with a reason and costs only itself; an archive that is a bomb (too many
// entries, too much unpacked, entries that overlap) or cut off is refused as a whole. Nothing is kept but one block of
// an entry and the list of a zip's entries. Through libarchive, and a check of the zip directory before it
// (zip_directory.h). One reader belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace calotype::files {

struct ArchiveLimits {
  int64_t entries = 20'000;                   ///< folders count too
  uint64_t total_bytes = uint64_t{16} << 30;  ///< unpacked, all entries together
  uint64_t entry_bytes = uint64_t{1} << 30;   ///< unpacked, each
  uint64_t ratio = 200;                       ///< unpacked bytes per byte read of the archive, beyond ratio_free
  uint64_t ratio_free = uint64_t{16} << 20;   ///< unpacked bytes that any archive may hold, however well they pack
  size_t name_bytes = 1024;                   ///< longer names are refused, entry by entry
};

struct ArchiveEntry {
  std::string name;     ///< with '/', without "./" and doubled slashes; UTF-8 when the archive says so, else its bytes
  std::string refusal;  ///< why its content must not be used, as "…: {refusal}"; empty for a usable file
};

enum class ArchiveKind { zip, tar, tar_gzip };

/// By the first bytes (of which 512 suffice); a gzip file is taken to hold a tar.
std::optional<ArchiveKind> archive_kind(std::string_view start);

/// What the first bytes look like, as in "a 7-Zip archive", "a PNG picture", "a web page"; "" when nothing is known.
std::string_view content_name(std::string_view start);

/// An archive's bytes, wherever they are. `read_at` fills the whole buffer; ranges lie below `size`.
struct ArchiveBytes {
  uint64_t size = 0;
  std::function<void(uint64_t offset, std::span<std::byte> to)> read_at;
};

class ArchiveReader {
 public:
  /// Errors: not_found; bad_input for what is no archive (saying what it looks like), a folder, and beyond the limits;
  /// corrupt_file for what is damaged or cut off.
  explicit ArchiveReader(const std::filesystem::path& path, const ArchiveLimits& limits = {});
  /// `source` names the bytes in messages; they must outlive the reader.
  ArchiveReader(std::span<const std::byte> bytes, std::string source, const ArchiveLimits& limits = {});
  ~ArchiveReader();
  ArchiveReader(const ArchiveReader&) = delete;
  ArchiveReader& operator=(const ArchiveReader&) = delete;

  ArchiveKind kind() const;

  /// The next file; folders are passed over. Errors as above.
  std::optional<ArchiveEntry> next();

  using Sink = std::function<void(std::span<const std::byte> block)>;
  /// Hands the content of the current entry to `sink` in order. Returns "" when all of it came and its checksum is
  /// right, else what is damaged; what the sink got is then worth nothing. Once per entry, never for a refused one.
  /// Errors: bad_input beyond the limits; corrupt_file when a tar ends early, because nothing can be read behind that.
  std::string unpack(const Sink& sink);

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace calotype::files
