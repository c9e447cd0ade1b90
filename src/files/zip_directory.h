// The directory at the end of a zip archive, checked before anything is unpacked: entries that overlap, or that claim
// more than the limits allow, are how a few kilobytes become terabytes.
//
//   ZipDirectory directory = read_zip_directory(bytes, "photos.zip", limits);
//
// Layout: PKWARE's APPNOTE.TXT 6.3.9, 4.3 (with zip64). Pure, any thread.
#pragma once

#include <string>
#include <vector>

#include "files/archive.h"

namespace calotype::files {

struct ZipEntry {
  std::string name;  ///< its first bytes as stored, for messages
  uint64_t offset = 0, packed = 0, unpacked = 0;
  std::string refusal;  ///< encrypted, or packed by another method than the usual two; "" for a usable entry
};

struct ZipDirectory {
  std::vector<ZipEntry> entries;  ///< by offset
  uint64_t end = 0;               ///< where the archive ends, its comment left out
};

/// Errors: corrupt_file where there is no directory, where it contradicts itself or the entries' own headers;
/// bad_input beyond the limits and for entries that overlap.
ZipDirectory read_zip_directory(const ArchiveBytes& bytes, const std::string& source, const ArchiveLimits& limits);

/// "1.5 GB", "200 bytes", for messages.
std::string bytes_text(uint64_t bytes);

}  // namespace calotype::files
