// Archives for tests: honest ones through libarchive's writer, hostile zips byte by byte.
//
//   std::string zip = zip_of({{.name = "a.txt", .content = "hello"}});
//   std::string tar = packed({{.name = "a.txt", .content = "hello"}}, {.gzip = true});
#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>
#include <zlib.h>

#include <optional>
#include <string>
#include <vector>

#include "files/hostile.h"

namespace calotype::files {

/// What a zip says of one file; the optional fields lie.
struct ZipPart {
  std::string name, content;
  uint16_t flags = 0, method = 0;
  uint32_t attributes = 0;  ///< Unix mode << 16 when not 0
  std::optional<uint32_t> offset{}, packed{}, unpacked{}, checksum{};
};

/// A zip written by hand, its files stored. With zip64, sizes and offsets stand in the 64-bit fields only.
inline std::string zip_of(const std::vector<ZipPart>& parts, bool zip64 = false) {
  const auto u16 = [](size_t v) { return little_endian(static_cast<uint16_t>(v)); };
  const auto u32 = [](size_t v) { return little_endian(static_cast<uint32_t>(v)); };
  const auto u64 = [](size_t v) { return little_endian(static_cast<uint64_t>(v)); };
  std::string body, directory;
  for (const ZipPart& part : parts) {
    const size_t offset = part.offset.value_or(static_cast<uint32_t>(body.size()));
    const size_t packed = part.packed.value_or(static_cast<uint32_t>(part.content.size()));
    const size_t unpacked = part.unpacked.value_or(static_cast<uint32_t>(part.content.size()));
    const auto* bytes = reinterpret_cast<const Bytef*>(part.content.data());
    const size_t crc =
        part.checksum.value_or(static_cast<uint32_t>(crc32(0, bytes, static_cast<uInt>(part.content.size()))));
    const size_t version = zip64 ? 45 : 20;
    const std::string common = u16(part.flags) + u16(part.method) + u32(0) + u32(crc);
    const std::string sizes = zip64 ? u32(~0u) + u32(~0u) : u32(packed) + u32(unpacked);
    const std::string local_extra = zip64 ? u16(1) + u16(16) + u64(unpacked) + u64(packed) : "";
    const std::string extra = zip64 ? u16(1) + u16(24) + u64(unpacked) + u64(packed) + u64(offset) : "";
    body += "PK\x03\x04" + u16(version) + common + sizes + u16(part.name.size()) + u16(local_extra.size()) + part.name +
            local_extra + part.content;
    directory += "PK\x01\x02" + u16(3 << 8 | version) + u16(version) + common + sizes + u16(part.name.size()) +
                 u16(extra.size()) + u16(0) + u16(0) + u16(0) + u32(part.attributes) + u32(zip64 ? ~0u : offset) +
                 part.name + extra;
  }
  const size_t at = body.size(), count = parts.size();
  std::string end;
  if (zip64)
    end = "PK\x06\x06" + u64(44) + u16(45) + u16(45) + u32(0) + u32(0) + u64(count) + u64(count) +
          u64(directory.size()) + u64(at) + "PK\x06\x07" + u32(0) + u64(at + directory.size()) + u32(1);
  end += "PK\x05\x06" + u16(0) + u16(0) + u16(zip64 ? 0xFFFF : count) + u16(zip64 ? 0xFFFF : count) +
         u32(zip64 ? ~0u : directory.size()) + u32(zip64 ? ~0u : at) + u16(0);
  return body + directory + end;
}

struct PackedPart {
  std::string name, content;
  unsigned type = AE_IFREG;
  std::string link{};  ///< target of a symbolic link
  std::string hardlink{};
};

struct PackOptions {
  bool zip = false, gzip = false;
};

/// A deflated zip or a tar with names in UTF-8, by libarchive.
inline std::string packed(const std::vector<PackedPart>& parts, const PackOptions& options) {
  const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr), before = ::uselocale(utf8);
  std::string out(1 << 20, '\0');
  size_t used = 0;
  archive* writer = archive_write_new();
  if (options.zip) archive_write_set_format_zip(writer);
  if (!options.zip) archive_write_set_format_pax_restricted(writer);
  if (options.gzip) archive_write_add_filter_gzip(writer);
  archive_write_set_options(writer, "hdrcharset=UTF-8");
  EXPECT_EQ(archive_write_open_memory(writer, out.data(), out.size(), &used), ARCHIVE_OK);
  for (const PackedPart& part : parts) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, part.name.c_str());
    archive_entry_set_filetype(entry, part.type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(part.content.size()));
    if (!part.link.empty()) archive_entry_set_symlink(entry, part.link.c_str());
    if (!part.hardlink.empty()) archive_entry_set_hardlink(entry, part.hardlink.c_str());
    EXPECT_EQ(archive_write_header(writer, entry), ARCHIVE_OK) << archive_error_string(writer);
    archive_write_data(writer, part.content.data(), part.content.size());
    archive_entry_free(entry);
  }
  EXPECT_EQ(archive_write_close(writer), ARCHIVE_OK);
  archive_write_free(writer);
  ::uselocale(before);
  ::freelocale(utf8);
  return out.substr(0, used);
}

}  // namespace calotype::files
