#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "base/atomic_file.h"
#include "base/base64.h"
#include "base/error.h"
#include "base/utf8.h"
#include "support/golden.h"

namespace calotype::base {
namespace {

namespace fs = std::filesystem;

TEST(AtomicFile, AppearsWholeOrNotAtAll) {
  const test::TemporaryFolder folder;
  {
    AtomicFile abandoned(folder / "a");
    abandoned.write("half");
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
  std::ofstream(folder / "a") << "old";
  AtomicFile file(folder / "a");
  file.write("new");
  EXPECT_EQ(read_file(folder / "a", 100), "old") << "replaced before commit";
  file.commit();
  EXPECT_EQ(read_file(folder / "a", 100), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator{}), 1);
}

TEST(AtomicFile, NamesThePathAndTheReason) {
  const test::TemporaryFolder folder;
  try {
    AtomicFile file(folder / "none" / "a");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::not_found);
    EXPECT_NE(std::string(error.what()).find("none/a"), std::string::npos);
  }
  EXPECT_THROW(AtomicFile(folder.path()), Error);
  EXPECT_THROW(read_file(folder / "missing", 10), Error);
  write_file(folder / "big", std::string(100, 'x'));
  EXPECT_THROW(read_file(folder / "big", 99), Error);
}

/// The next descriptor that the system will hand out.
int next_descriptor() {
  const int descriptor = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  ::close(descriptor);
  return descriptor;
}

// /dev/full refuses every write with ENOSPC; here it takes the place of the temporary file.
TEST(AtomicFile, AFullDiskIsRecognisedAndLeavesTheOldFile) {
  const test::TemporaryFolder folder;
  write_file(folder / "a", "old");
  {
    const int descriptor = next_descriptor();
    AtomicFile file(folder / "a");
    const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
    ASSERT_EQ(::dup2(full, descriptor), descriptor);
    ::close(full);
    try {
      file.write("new");
      FAIL() << "the file was not the descriptor expected";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::disk_full) << error.what();
    }
  }
  EXPECT_EQ(read_file(folder / "a", 100), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator{}), 1);
}

// RFC 3629's limits, byte by byte.
TEST(Utf8, RejectsOverlongSurrogatesAndBeyond) {
  for (const char* good : {"", "a", "é", "漢", "👩‍🚀", "\xF4\x8F\xBF\xBF", "\xED\x9F\xBF", "\xEE\x80\x80"})
    EXPECT_FALSE(first_broken_utf8(good)) << good;
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
                          "\xF4\x90\x80\x80", "\xF5", "\xFF", "\xE2\x82", "a\xC3"})
    EXPECT_TRUE(first_broken_utf8(bad));
  EXPECT_EQ(*first_broken_utf8("ok \xFF"), 3u);
  for (const char32_t code : {U'a', U'é', U'漢', char32_t{0x10FFFF}}) {
    std::string text;
    append_utf8(text, code);
    EXPECT_EQ(decode_utf8(text, 0).code, code);
  }
}

TEST(Errors, ForeignTextIsMadeHarmless) {
  EXPECT_EQ(printable("a\x1b[31m\n\xff"), "a\\x1b[31m\\x0a\\xff");
  EXPECT_EQ(printable(std::string(500, 'x'), 10), "xxxxxxxxxx…");
}

TEST(Errors, ExitStatusTellsWhoCanMendIt) {
  EXPECT_EQ(exit_code(ErrorKind::internal), 1);
  EXPECT_EQ(exit_code(ErrorKind::canceled), 130);
  for (const ErrorKind kind :
       {ErrorKind::bad_input, ErrorKind::not_found, ErrorKind::corrupt_file, ErrorKind::unsupported,
        ErrorKind::out_of_memory, ErrorKind::disk_full, ErrorKind::conflict})
    EXPECT_EQ(exit_code(kind), 2) << name(kind);
}

// RFC 4648 §10.
TEST(Base64, MatchesRfc4648) {
  const std::pair<std::string, std::string> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : vectors) {
    EXPECT_EQ(base64(plain), coded);
    EXPECT_EQ(base64_decoded(coded), plain);
  }
  EXPECT_EQ(base64_decoded("Zg"), "f");
  EXPECT_EQ(base64_decoded("+/+/"), "\xfb\xff\xbf");
}

TEST(Base64, RefusesEverythingElse) {
  for (const char* text : {"Z", "Zg=", "Zg===", "=", "Zh==", "Zm9v\n", "Zm 9v", "Zm9_", "Zg==Zg=="})
    EXPECT_FALSE(base64_decoded(text)) << text;
}

/// Every folder and source file that docs/map.md names exists, and every one that exists is named.
TEST(Map, MatchesTheTree) {
  const fs::path root = CALOTYPE_SOURCE_DIR;
  const std::string map = read_file(root / "docs" / "map.md", 1 << 20);
  for (const auto& folder : fs::directory_iterator(root / "src")) {
    const std::string name = folder.path().filename().string();
    const size_t at = map.find("### src/" + name + "\n");
    ASSERT_NE(at, std::string::npos) << "docs/map.md has no section for src/" << name;
    const std::string section = map.substr(at, map.find("\n### ", at + 5) - at);
    for (const auto& file : fs::directory_iterator(folder)) {
      const std::string stem = file.path().stem().string();
      EXPECT_NE(section.find("`" + stem + "`"), std::string::npos)
          << "docs/map.md does not name src/" << name << "/" << stem;
    }
    for (size_t tick = section.find("- `"); tick != std::string::npos; tick = section.find("- `", tick + 1)) {
      const std::string stem = section.substr(tick + 3, section.find('`', tick + 3) - tick - 3);
      EXPECT_TRUE(fs::exists(folder.path() / (stem + ".cpp")) || fs::exists(folder.path() / (stem + ".h")))
          << "src/" << name << "/" << stem << " is in docs/map.md only";
    }
  }
}

}  // namespace
}  // namespace calotype::base
