// Archives are read back by the system's own tar.
#include "files/tar_writer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "support/golden.h"

namespace calotype::files {
namespace {

TEST(WriteTar, TarUnpacksTheSameFiles) {
  const test::TemporaryFolder folder;
  const std::string big(3'000'001, 'x');
  base::write_file(folder / "big.bin", big);
  const std::string deep = "output/" + std::string(120, 'd') + "/ünïcode.txt";  // longer than a plain tar header holds
  write_tar(folder / "a.tar", {{.name = "output/big.bin", .file = folder / "big.bin"}, {.name = deep, .bytes = "a cat\n"}});
  const std::string command = "cd '" + folder.path().string() + "' && LC_ALL=C.UTF-8 tar -xf a.tar";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(base::read_file(folder / "output/big.bin", 10'000'000), big);
  EXPECT_EQ(base::read_file(folder / deep, 100), "a cat\n");
}

TEST(WriteTar, AMissingFileIsNamedAndNothingIsLeft) {
  const test::TemporaryFolder folder;
  try {
    write_tar(folder / "a.tar", {{.name = "x", .file = folder / "missing.bin"}});
    FAIL() << "no error";
  } catch (const base::Error& error) {
    EXPECT_NE(std::string(error.what()).find("missing.bin"), std::string::npos) << error.what();
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace calotype::files
