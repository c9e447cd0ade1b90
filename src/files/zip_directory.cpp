#include "files/zip_directory.h"

#include <algorithm>
#include <tuple>

#include "base/error.h"

namespace calotype::files {
namespace {

using base::check;
using base::ErrorKind;
using base::printable;

constexpr size_t kEndBytes = 22, kLocatorBytes = 20, kEnd64Bytes = 56, kCentralBytes = 46, kLocalBytes = 30;
constexpr std::string_view kEnd = "PK\x05\x06", kLocator = "PK\x06\x07", kEnd64 = "PK\x06\x06", kCentral = "PK\x01\x02",
                           kLocal = "PK\x03\x04";
// libarchive looks for the end record here, too. A zip comment of more than 16 kB has not been seen.
constexpr uint64_t kTail = 16'384;

/// Little-endian numbers of a record that was read whole.
struct Record {
  std::string bytes;
  uint64_t number(size_t at, size_t length) const {
    uint64_t value = 0;
    for (size_t i = length; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes.at(at + i));
    return value;
  }
  bool is(std::string_view signature) const { return bytes.starts_with(signature); }
};

/// The bytes there, fewer where the file ends.
Record read(const ArchiveBytes& bytes, uint64_t at, uint64_t length) {
  Record record;
  if (at >= bytes.size) return record;
  record.bytes.resize(std::min(length, bytes.size - at));
  bytes.read_at(at, std::as_writable_bytes(std::span(record.bytes)));
  return record;
}

template <typename... Args>
void check_zip(bool condition, const std::string& source, fmt::format_string<Args...> what, Args&&... args) {
  if (!condition)
    base::fail(ErrorKind::corrupt_file, "{}: damaged or incomplete zip archive ({}); pack or fetch it again", source,
               fmt::format(what, std::forward<Args>(args)...));
}

/// Where the directory is, how many entries it claims, and how far all offsets are off because of bytes put in front.
struct End {
  uint64_t directory = 0, size = 0, count = 0, shift = 0, end = 0;
};

End place(const std::string& source, End end, uint64_t claimed_offset, uint64_t directory_end) {
  check_zip(end.size <= directory_end && claimed_offset <= directory_end - end.size, source,
            "its directory of {} bytes at {} does not fit", end.size, claimed_offset);
  end.directory = directory_end - end.size;
  end.shift = end.directory - claimed_offset;
  return end;
}

End find_end(const ArchiveBytes& bytes, const std::string& source) {
  const uint64_t tail_at = bytes.size - std::min(bytes.size, kTail);
  const Record tail = read(bytes, tail_at, kTail);
  size_t found = std::string::npos;
  if (tail.bytes.size() >= kEndBytes) found = tail.bytes.rfind(kEnd, tail.bytes.size() - kEndBytes);
  check_zip(found != std::string::npos, source, "the directory at its end is missing");
  const Record record{tail.bytes.substr(found, kEndBytes)};
  check_zip(record.number(4, 2) == record.number(6, 2), source, "it is one part of several");
  End end{.size = record.number(12, 4), .count = record.number(10, 2), .end = tail_at + found + kEndBytes};

  const uint64_t at = tail_at + found;
  if (at < kLocatorBytes) return place(source, end, record.number(16, 4), at);
  const Record locator = read(bytes, at - kLocatorBytes, kLocatorBytes);
  if (!locator.is(kLocator)) return place(source, end, record.number(16, 4), at);
  const uint64_t at64 = locator.number(8, 8);
  const Record end64 = read(bytes, at64, kEnd64Bytes);
  check_zip(end64.bytes.size() == kEnd64Bytes && end64.is(kEnd64), source, "its zip64 record is not at {}", at64);
  end.count = end64.number(32, 8);
  end.size = end64.number(40, 8);
  return place(source, end, end64.number(48, 8), at64);
}

/// Replaces the numbers that are too large for their 32 bits by those of the zip64 field (id 1), which holds only
/// these.
void widen(const Record& record, size_t extra_at, ZipEntry& entry) {
  constexpr uint64_t kMax = 0xFFFF'FFFF;
  const size_t end = record.bytes.size();
  for (size_t at = extra_at; at + 4 <= end;) {
    const size_t id = record.number(at, 2), length = record.number(at + 2, 2);
    at += 4;
    if (length > end - at) return;
    size_t field = at;
    if (id == 1)
      for (uint64_t* number : {&entry.unpacked, &entry.packed, &entry.offset})
        if (*number == kMax && field + 8 <= at + length) {
          *number = record.number(field, 8);
          field += 8;
        }
    at += length;
  }
}

std::string refusal_of(uint64_t flags, uint64_t method) {
  constexpr uint64_t kEncrypted = 1 | 1 << 6 | 1 << 13;
  if ((flags & kEncrypted) != 0) return "is encrypted; pack it without a password";
  // Others need codecs with large memory of their own, or libarchive lacks them.
  if (method != 0 && method != 8)
    return fmt::format("is packed by zip method {}, expected 8 (deflate) or 0 (stored); pack it again", method);
  return "";
}

std::vector<ZipEntry> read_entries(const ArchiveBytes& bytes, const std::string& source, const End& end,
                                   const ArchiveLimits& limits) {
  check(end.count <= static_cast<uint64_t>(limits.entries), ErrorKind::bad_input,
        "{}: has {} entries, at most {} are accepted; split the archive", source, end.count, limits.entries);
  std::vector<ZipEntry> entries;
  uint64_t at = end.directory;
  const uint64_t directory_end = end.directory + end.size;
  for (uint64_t i = 0; i < end.count; ++i) {
    Record record = read(bytes, at, kCentralBytes);
    check_zip(record.bytes.size() == kCentralBytes && record.is(kCentral), source, "entry {} of {} is not in it", i + 1,
              end.count);
    const uint64_t name = record.number(28, 2), extra = record.number(30, 2), comment = record.number(32, 2);
    ZipEntry entry{.offset = record.number(42, 4),
                   .packed = record.number(20, 4),
                   .unpacked = record.number(24, 4),
                   .refusal = refusal_of(record.number(8, 2), record.number(10, 2))};
    const Record texts = read(bytes, at + kCentralBytes, name + extra);
    check_zip(texts.bytes.size() == name + extra, source, "entry {} of {} is cut off", i + 1, end.count);
    entry.name = texts.bytes.substr(0, std::min<uint64_t>(name, 200));
    widen(texts, name, entry);
    check_zip(!__builtin_add_overflow(entry.offset, end.shift, &entry.offset), source, "an offset is too large");
    entries.push_back(std::move(entry));
    at += kCentralBytes + name + extra + comment;
  }
  check_zip(at == directory_end, source, "its directory ends at {}, expected {}", at, directory_end);
  return entries;
}

void check_sizes(const std::vector<ZipEntry>& entries, uint64_t archive_size, const std::string& source,
                 const ArchiveLimits& limits) {
  uint64_t total = 0;
  for (const ZipEntry& entry : entries) {
    check(entry.unpacked <= limits.entry_bytes, ErrorKind::bad_input,
          "{}: entry {} unpacks to {}, at most {} are accepted", source, printable(entry.name),
          bytes_text(entry.unpacked), bytes_text(limits.entry_bytes));
    total += entry.unpacked;  // at most `entries` times `entry_bytes`
  }
  check(total <= limits.total_bytes, ErrorKind::bad_input,
        "{}: unpacks to {}, at most {} are accepted; split the archive", source, bytes_text(total),
        bytes_text(limits.total_bytes));
  check(total <= limits.ratio_free || (total - limits.ratio_free) / limits.ratio <= archive_size, ErrorKind::bad_input,
        "{}: {} unpack to {}, more than {} to 1; this looks like an archive made to exhaust its reader", source,
        bytes_text(archive_size), bytes_text(total), limits.ratio);
}

/// Entries must lie one behind the other: D. Fifield, "A better zip bomb", WOOT 2019, reuses the same packed bytes.
void check_places(const ArchiveBytes& bytes, const std::vector<ZipEntry>& entries, const End& end,
                  const std::string& source) {
  for (size_t i = 0; i < entries.size(); ++i) {
    const ZipEntry& entry = entries[i];
    const Record local = read(bytes, entry.offset, kLocalBytes);
    check_zip(local.bytes.size() == kLocalBytes && local.is(kLocal), source, "entry {} is not at {}",
              printable(entry.name), entry.offset);
    const uint64_t start = entry.offset + kLocalBytes + local.number(26, 2) + local.number(28, 2);
    check_zip(start <= end.directory && entry.packed <= end.directory - start, source,
              "entry {} with {} bytes at {} does not fit", printable(entry.name), entry.packed, start);
    const bool last = i + 1 == entries.size();
    check(last || start + entry.packed <= entries[i + 1].offset, ErrorKind::bad_input,
          "{}: entries {} and {} overlap; this looks like an archive made to exhaust its reader", source,
          printable(entry.name), last ? "" : printable(entries[i + 1].name));
  }
}

}  // namespace

std::string bytes_text(uint64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  if (bytes < 1'000'000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3);
  if (bytes < 1'000'000'000) return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
  return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

ZipDirectory read_zip_directory(const ArchiveBytes& bytes, const std::string& source, const ArchiveLimits& limits) {
  const End end = find_end(bytes, source);
  ZipDirectory directory{.entries = read_entries(bytes, source, end, limits), .end = end.end};
  std::ranges::sort(directory.entries, [](const ZipEntry& a, const ZipEntry& b) {
    return std::tie(a.offset, a.name) < std::tie(b.offset, b.name);
  });
  check_sizes(directory.entries, bytes.size, source, limits);
  check_places(bytes, directory.entries, end, source);
  return directory;
}

}  // namespace calotype::files
