// Zip and tar archives: limits hold, names of usable entries lead nowhere, and two readings agree. libarchive itself
// carries no instrumentation here; zip_directory.cpp, which reads the same bytes before it, does.
#include "files/archive.h"

#include "base/utf8.h"
#include "fuzz.h"

namespace calotype::fuzz {
namespace {

constexpr files::ArchiveLimits kLimits{.entries = 50,
                                       .total_bytes = 1 << 20,
                                       .entry_bytes = 1 << 18,
                                       .ratio = 100,
                                       .ratio_free = 1 << 16,
                                       .name_bytes = 64};

struct Entry {
  std::string name;
  uint64_t bytes = 0;
  bool damaged = false;
  bool operator==(const Entry&) const = default;
};

void check_name(const std::string& name) {
  require(!name.empty() && name.size() <= kLimits.name_bytes, "names keep to their limit");
  const std::string inside = "/" + name + "/";
  require(inside.find("/../") == std::string::npos && inside.find("/./") == std::string::npos, "no name leads upwards");
  require(inside.find("//") == std::string::npos && name.find('\\') == std::string::npos, "names are plain paths");
}

std::vector<Entry> read(std::string_view input) {
  std::vector<Entry> entries;
  uint64_t total = 0;
  files::ArchiveReader archive(bytes_of(input), std::string(kSource), kLimits);
  while (const auto entry = archive.next()) {
    if (!entry->refusal.empty()) {
      require(!base::first_broken_utf8(entry->refusal), "reasons are text");
      continue;
    }
    check_name(entry->name);
    Entry& out = entries.emplace_back(Entry{.name = entry->name});
    out.damaged = !archive.unpack([&](std::span<const std::byte> block) { out.bytes += block.size(); }).empty();
    require(out.bytes <= kLimits.entry_bytes, "an entry keeps to its limit");
    total += out.bytes;
  }
  require(entries.size() <= static_cast<size_t>(kLimits.entries) && total <= kLimits.total_bytes, "limits hold");
  return entries;
}

}  // namespace

void fuzz_one(std::string_view input) {
  std::vector<Entry> entries;
  if (!accepted([&] { entries = read(input); })) return;
  require(read(input) == entries, "reading twice gives the same");

  files::ArchiveReader passing(bytes_of(input), std::string(kSource), kLimits);
  size_t count = 0;
  accepted([&] {
    while (const auto entry = passing.next()) count += entry->refusal.empty();
  });
  require(count <= static_cast<size_t>(kLimits.entries), "limits hold when nothing is unpacked");
}

}  // namespace calotype::fuzz
