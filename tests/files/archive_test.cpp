#include "files/archive.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/atomic_file.h"
#include "files/archives.h"
#include "support/golden.h"

namespace calotype::files {
namespace {

using base::ErrorKind;

/// "name: content", or "name! refusal" or "name? damage", in the archive's order.
using Listing = std::vector<std::string>;

Listing listed(ArchiveReader& archive) {
  Listing out;
  while (const auto entry = archive.next()) {
    if (!entry->refusal.empty()) {
      out.push_back(entry->name + "! " + entry->refusal);
      continue;
    }
    std::string content;
    const std::string damage = archive.unpack([&](std::span<const std::byte> block) {
      content.append(reinterpret_cast<const char*>(block.data()), block.size());
    });
    out.push_back(entry->name + (damage.empty() ? ": " + content : "? " + damage));
  }
  return out;
}

Listing listed(const std::string& bytes, const ArchiveLimits& limits = {}) {
  ArchiveReader archive(bytes_of(bytes), "data", limits);
  return listed(archive);
}

void expect_archive_refused(const std::string& bytes, const std::vector<std::string>& words,
                            ErrorKind kind = ErrorKind::bad_input, const ArchiveLimits& limits = {}) {
  std::vector<std::string> all = words;
  all.push_back("data: ");
  expect_refused(kind, all, [&] {
    ArchiveReader archive(bytes_of(bytes), "data", limits);
    while (const auto entry = archive.next())
      if (entry->refusal.empty()) archive.unpack([](std::span<const std::byte>) {});
  });
}

/// The first entry is refused with this reason, and the one behind it is usable.
void expect_entry_refused(const std::string& bytes, std::string_view reason) {
  const Listing listing = listed(bytes);
  ASSERT_EQ(listing.size(), 2u);
  EXPECT_NE(listing[0].find("! "), std::string::npos) << listing[0];
  EXPECT_NE(listing[0].find(reason), std::string::npos) << listing[0];
  EXPECT_EQ(listing[1], "good.txt: fine");
}

const std::vector<PackedPart> kParts = {{.name = "b/", .content = "", .type = AE_IFDIR},
                                        {.name = "b/two.txt", .content = "2"},
                                        {.name = "灯台 é.txt", .content = std::string(100'000, 'x')},
                                        {.name = "empty", .content = ""}};
const Listing kListing = {"b/two.txt: 2", "灯台 é.txt: " + std::string(100'000, 'x'), "empty: "};

TEST(Archive, ReadsZipTarAndGzippedTar) {
  EXPECT_EQ(listed(packed(kParts, {.zip = true})), kListing);
  EXPECT_EQ(listed(packed(kParts, {})), kListing);
  EXPECT_EQ(listed(packed(kParts, {.gzip = true})), kListing);
}

TEST(Archive, ReadsStoredZipAndZip64) {
  const std::vector<ZipPart> parts = {{.name = "a", .content = "one"}, {.name = "b/c", .content = "two"}};
  const Listing listing = {"a: one", "b/c: two"};
  EXPECT_EQ(listed(zip_of(parts)), listing);
  EXPECT_EQ(listed(zip_of(parts, true)), listing);
}

TEST(Archive, ReadsFilesWhateverTheirName) {
  const test::TemporaryFolder folder;
  const std::filesystem::path path = folder / "фото.png";
  base::write_file(path, packed(kParts, {.gzip = true}));
  ArchiveReader archive(path);
  EXPECT_EQ(archive.kind(), ArchiveKind::tar_gzip);
  EXPECT_EQ(listed(archive), kListing);
  expect_refused(ErrorKind::not_found, {"none.zip"}, [&] { ArchiveReader reader(folder / "none.zip"); });
  expect_refused(ErrorKind::bad_input, {"not an ordinary file"}, [&] { ArchiveReader reader(folder.path()); });
}

TEST(Archive, EntriesMayBePassedOver) {
  for (const std::string& bytes : {packed(kParts, {.zip = true}), packed(kParts, {}), packed(kParts, {.gzip = true})}) {
    ArchiveReader archive(bytes_of(bytes), "data");
    int entries = 0;
    while (archive.next()) ++entries;
    EXPECT_EQ(entries, 3);
  }
}

TEST(Archive, EmptyOnesHaveNoEntries) {
  EXPECT_EQ(listed(zip_of({})), Listing{});
  EXPECT_EQ(listed(packed({}, {})), Listing{});
  EXPECT_EQ(listed(std::string(1024, '\0')), Listing{});
}

TEST(Archive, NamesArePlain) {
  EXPECT_EQ(listed(packed({{.name = "./a//b/./c.txt", .content = "1"}}, {})), Listing{"a/b/c.txt: 1"});
  EXPECT_EQ(listed(zip_of({{.name = "caf\xE9.txt", .content = "1"}})), Listing{"caf\xE9.txt: 1"});
}

TEST(Archive, SaysWhatSomethingElseIs) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "is empty"},
      {"Rar!\x1A\x07", "a RAR archive"},
      {"7z\xBC\xAF\x27\x1C", "a 7-Zip archive"},
      {"\xFF\xD8\xFF\xE0", "a JPEG picture"},
      {"  <!DOCTYPE html>", "a web page"},
      {"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"},
      {std::string("RIFF\0\0\0\0WEBP", 12), "a WebP picture"},
      {std::string("\0\0\0\x18"
                   "ftypmp42",
                   12),
       "a film"},
      {"hello\x01", "a file that starts with \"hello\\x01\""},
      {std::string(511, '\0'), "starts with"}};
  for (const auto& [bytes, words] : cases) expect_archive_refused(bytes, {words, "expected a zip, tar or tar.gz"});
}

TEST(ArchiveHostile, UnsafeNamesAreSkipped) {
  const std::pair<std::string, const char*> names[] = {{"../evil.txt", "(..)"},
                                                       {"a/../../evil.txt", "(..)"},
                                                       {"a/..", "(..)"},
                                                       {"/etc/passwd", "absolute"},
                                                       {"a/b\\..\\..\\evil.txt", "backslash"},
                                                       {"C:evil.txt", "drive letter"},
                                                       {"./.", "no name"},  // found by fuzzing: nothing of it is left
                                                       {std::string(1025, 'n'), "1025 bytes"}};
  for (const auto& [name, reason] : names) {
    SCOPED_TRACE(name);
    expect_entry_refused(zip_of({{.name = name, .content = "bad"}, {.name = "good.txt", .content = "fine"}}), reason);
    expect_entry_refused(packed({{.name = name, .content = "bad"}, {.name = "good.txt", .content = "fine"}}, {}),
                         reason);
  }
}

// .NET before 4.6.1 wrote backslashes into zips; libarchive turns them round, and the names are checked after that.
TEST(ArchiveHostile, BackslashesNeverLeadOut) {
  for (const std::string name : {"..\\evil.txt", "\\evil.txt", "a\\..\\..\\evil.txt"})
    expect_entry_refused(zip_of({{.name = name, .content = "bad"}, {.name = "good.txt", .content = "fine"}}), "name");
}

TEST(ArchiveHostile, LinksAndDevicesAreSkipped) {
  const PackedPart good{.name = "good.txt", .content = "fine"};
  expect_entry_refused(packed({{.name = "l", .type = AE_IFLNK, .link = "/etc/passwd"}, good}, {}), "link");
  expect_entry_refused(packed({{.name = "l", .hardlink = "/etc/passwd"}, good}, {}), "link");
  expect_entry_refused(packed({{.name = "d", .type = AE_IFCHR}, good}, {}), "device");
  expect_entry_refused(packed({{.name = "p", .type = AE_IFIFO}, good}, {}), "device");
  expect_entry_refused(zip_of({{.name = "l", .content = "/etc/passwd", .attributes = 0120777u << 16},
                               {.name = "good.txt", .content = "fine"}}),
                       "link");
}

TEST(ArchiveHostile, EncryptedAndOddlyPackedEntriesAreSkipped) {
  const ZipPart good{.name = "good.txt", .content = "fine"};
  expect_entry_refused(zip_of({{.name = "secret", .content = std::string(20, 'x'), .flags = 1}, good}), "encrypted");
  expect_entry_refused(zip_of({{.name = "lzma", .content = std::string(20, 'x'), .method = 14}, good}), "method 14");
}

TEST(ArchiveHostile, DamagedEntriesOfAZipCostOnlyThemselves) {
  const ZipPart good{.name = "good.txt", .content = "fine"};
  Listing listing = listed(zip_of({{.name = "crc", .content = "12345", .checksum = 1}, good}));
  ASSERT_EQ(listing.size(), 2u);
  EXPECT_NE(listing[0].find("crc? is damaged (ZIP bad CRC"), std::string::npos) << listing[0];
  EXPECT_EQ(listing[1], "good.txt: fine");

  listing = listed(zip_of({good, {.name = "noise", .content = "\xFF\xFF\xFF\xFF", .method = 8, .unpacked = 9}, good}));
  ASSERT_EQ(listing.size(), 3u);
  EXPECT_NE(listing[1].find("noise? is damaged"), std::string::npos) << listing[1];
  EXPECT_EQ(listing[2], "good.txt: fine");

  std::vector<ZipPart> many(40, {.name = "noise", .content = "\xFF\xFF\xFF\xFF", .method = 8, .unpacked = 9});
  expect_archive_refused(zip_of(many), {"more than 32 damaged entries"}, ErrorKind::corrupt_file);
}

TEST(ArchiveHostile, CutOffArchivesAreRefused) {
  for (const bool zip64 : {false, true}) {
    const std::string zip = zip_of({{.name = "a", .content = "one"}, {.name = "b", .content = "two"}}, zip64);
    for (size_t length = 5; length < zip.size(); ++length)
      expect_archive_refused(zip.substr(0, length), {"damaged or incomplete zip"}, ErrorKind::corrupt_file);
  }
  const std::vector<PackedPart> parts = {{.name = "a", .content = std::string(2000, 'a')},
                                         {.name = "b", .content = std::string(2000, 'b')}};
  const std::string tar = packed(parts, {}), gzip = packed(parts, {.gzip = true});
  for (const size_t length : {513, 2000, 2600, 4000})
    expect_archive_refused(tar.substr(0, length), {"damaged or incomplete tar archive"}, ErrorKind::corrupt_file);
  for (const size_t length : {gzip.size() / 2, gzip.size() - 12})
    expect_archive_refused(gzip.substr(0, length), {"damaged or incomplete tar.gz archive"}, ErrorKind::corrupt_file);
}

TEST(ArchiveHostile, OverlappingEntriesAreRefused) {
  const ZipPart first{.name = "a", .content = std::string(100, 'a')};
  ZipPart second{.name = "b", .content = std::string(100, 'b'), .offset = 0};
  expect_archive_refused(zip_of({first, second}), {"a and b overlap"});  // two names for the same bytes

  // A file inside the packed bytes of another (Fifield's construction).
  const std::string inner = zip_of({{.name = "inner", .content = "x"}}).substr(0, 36);
  ZipPart nested{.name = "outer", .content = inner};
  ZipPart alias{.name = "inner", .content = "x", .offset = 35};
  expect_archive_refused(zip_of({nested, alias}), {"outer and inner overlap"});

  ZipPart long_one{.name = "a", .content = "abc", .packed = 60};
  expect_archive_refused(zip_of({long_one, second}), {"overlap"});
}

TEST(ArchiveHostile, DirectoriesThatLieAreRefused) {
  const std::string zip = zip_of({{.name = "a", .content = "one"}});
  const auto changed = [&](size_t from_end, char value) {
    std::string bytes = zip;
    bytes[bytes.size() - from_end] = value;
    return bytes;
  };
  const auto corrupt = [](const std::string& bytes, const char* words) {
    expect_archive_refused(bytes, {words}, ErrorKind::corrupt_file);
  };
  corrupt(changed(12, 9), "entry 2 of 9 is not in it");  // number of entries
  corrupt(changed(12, 0), "its directory ends at");      // fewer than there are
  corrupt(changed(9, 1), "does not fit");                // size of the directory
  corrupt(changed(16, 1), "one part of several");        // number of this disk
  corrupt(zip_of({{.name = "a", .content = "one", .offset = 1}}), "is not at 1");
  corrupt(zip_of({{.name = "a", .content = "one", .packed = 1000}}), "does not fit");
  expect_archive_refused(zip_of({{.name = "a", .content = "x", .unpacked = 0xFFFF'FFF0}}),
                         {"entry a unpacks to 4.3 GB"});
}

TEST(ArchiveHostile, BombsAreRefused) {
  const std::string zeros(40 << 20, '\0');
  const std::vector<PackedPart> bomb = {{.name = "bomb", .content = zeros}};
  const std::string zip = packed(bomb, {.zip = true}), gzip = packed(bomb, {.gzip = true});
  EXPECT_LT(zip.size(), 100'000u);
  expect_archive_refused(zip, {"more than 200 to 1"});
  expect_archive_refused(gzip, {"more than 200 to 1"});
  EXPECT_EQ(listed(zip, {.ratio_free = 64 << 20}).size(), 1u);

  // Passed over without being asked for: the tar must still be unpacked to get behind it.
  ArchiveReader passing(bytes_of(gzip), "data");
  ASSERT_TRUE(passing.next());
  expect_refused(ErrorKind::bad_input, {"more than 200 to 1"}, [&] { passing.next(); });
}

// The directory says 9 bytes, the deflated stream holds 40 MB: what is announced is checked first, what comes later.
TEST(ArchiveHostile, BombsThatLieAboutTheirSizeAreCutShort) {
  const std::string zip = packed({{.name = "bomb", .content = std::string(40 << 20, '\0')}}, {.zip = true});
  const size_t start = 30 + 4;
  std::string content = zip.substr(start, zip.rfind("PK\x01\x02") - start);
  for (const std::string& bytes : {zip_of({{.name = "bomb", .content = content, .method = 8, .unpacked = 9}})}) {
    uint64_t seen = 0;
    try {
      ArchiveReader archive(bytes_of(bytes), "data");
      ASSERT_TRUE(archive.next());
      const std::string damage = archive.unpack([&](std::span<const std::byte> block) { seen += block.size(); });
      EXPECT_NE(damage.find("damaged"), std::string::npos) << damage;
    } catch (const base::Error& error) {
      EXPECT_NE(std::string(error.what()).find("200 to 1"), std::string::npos) << error.what();
    }
    EXPECT_LT(seen, 32u << 20);
  }
}

TEST(ArchiveHostile, LimitsHold) {
  const std::vector<PackedPart> parts = {{.name = "a", .content = std::string(600, 'a')},
                                         {.name = "b", .content = std::string(600, 'b')},
                                         {.name = "c/", .content = "", .type = AE_IFDIR}};
  for (const std::string& bytes : {packed(parts, {.zip = true}), packed(parts, {}), packed(parts, {.gzip = true})}) {
    EXPECT_EQ(listed(bytes, {.entries = 3, .total_bytes = 1200, .entry_bytes = 600}).size(), 2u);
    expect_archive_refused(bytes, {"entries"}, ErrorKind::bad_input, {.entries = 2});
    expect_archive_refused(bytes, {"1.2 kB"}, ErrorKind::bad_input, {.total_bytes = 1199});
    expect_archive_refused(bytes, {"entry", "600 bytes", "599 bytes"}, ErrorKind::bad_input, {.entry_bytes = 599});
  }
}

TEST(ArchiveHostile, GzipInGzipIsRefused) {
  const std::string once = packed({{.name = "a", .content = "one"}}, {.gzip = true});
  const auto gzipped = [](const std::string& text) {
    z_stream stream{};
    deflateInit2(&stream, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
    std::string out(deflateBound(&stream, text.size()) + 32, '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
  };
  expect_archive_refused(gzipped(once), {"more than once"});
  expect_archive_refused(gzipped("just a text, no tar"), {"tar.gz"}, ErrorKind::corrupt_file);
}

// Any damage is either not noticed or an Error; sanitizers watch.
TEST(ArchiveHostile, FlippedBytesNeverCrash) {
  uint32_t state = 1;
  const auto next = [&](size_t below) { return (state = state * 1664525 + 1013904223) % below; };
  const std::vector<PackedPart> parts = {{.name = "a.txt", .content = std::string(700, 'a')},
                                         {.name = "灯台.txt", .content = "b"}};
  int refused = 0;
  for (const std::string& whole : {packed(parts, {.zip = true}), packed(parts, {}), packed(parts, {.gzip = true}),
                                   zip_of({{.name = "a", .content = "1"}, {.name = "b", .content = "2"}}, true)})
    for (int round = 0; round < 300; ++round) {
      std::string bytes = whole;
      for (int flips = 0; flips < 3; ++flips) bytes[next(bytes.size())] = static_cast<char>(next(256));
      try {
        listed(bytes, {.total_bytes = 1 << 20});
      } catch (const base::Error&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace calotype::files
