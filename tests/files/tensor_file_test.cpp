// Files are told apart by their content, never by their name.
#include "files/tensor_file.h"

#include <sys/stat.h>

#include "base/atomic_file.h"
#include "hostile.h"
#include "support/golden.h"

namespace calotype::files {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;

class TensorFiles : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& bytes) {
    base::write_file(folder_ / name, bytes);
    return folder_ / name;
  }
  test::TemporaryFolder folder_;
};

TEST_F(TensorFiles, NamesWhatIsNoCheckpoint) {
  const struct {
    std::string bytes, word;
  } foreign[] = {
      {std::string("PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0archive/data.pkl", 30), "PyTorch pickle"},
      {"\x80\x02}q\x01X\x04\x00", "pickle"},
      {"\x80\x04\x95\x10", "pickle"},
      {"<!DOCTYPE html><html><head>", "web page"},
      {"\r\n  <html lang=\"en\">", "web page"},
      {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>", "web page"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 23802932552\n", "git lfs pull"},
      {"Access to model black-forest-labs/FLUX.1-dev is restricted.", "licence"},
      {"Entry not found", "does not exist"},
      {"\x89PNG\r\n\x1a\n", "PNG picture"},
      {"\xFF\xD8\xFF\xE0 JFIF", "JPEG picture"},
      {"\x1F\x8B\x08", "gzip"},
      {"{\"weight_map\": {}}", "JSON text"},
      {"{\n  \"_class_name\": \"FluxTransformer2DModel\"\n}", "JSON text"},
  };
  for (const auto& [bytes, word] : foreign) {
    const fs::path path = write("model.SAFETENSORS", bytes);
    expect_refused(ErrorKind::unsupported, {path.string(), word, "expected safetensors or GGUF"},
                   [&] { open_tensor_file(path); });
  }
  const fs::path path = write("model.safetensors", "just some text that is no model");
  expect_refused(ErrorKind::corrupt_file, {path.string(), "no safetensors file"}, [&] { open_tensor_file(path); });
}

// The first bytes are the header's length: 640 and 1152 start like pickles of protocol 2 and 4, 35615 like gzip, 8508
// like a web page, 123 like JSON, 67324752 like a zip archive.
TEST_F(TensorFiles, TakesNoLengthForASignature) {
  for (const size_t length : {123, 640, 1152, 8508, 35615}) {
    std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
    header.resize(length, ' ');
    const std::string bytes = little_endian<uint64_t>(length) + header + "\7";
    EXPECT_EQ(open_tensor_file(write("a.safetensors", bytes)).tensors.size(), 1u) << length;
    expect_refused(ErrorKind::corrupt_file, {fmt::format("claims {} bytes", length), "cut short"},
                   [&] { open_tensor_file(write("cut.safetensors", bytes.substr(0, 100))); });
  }
}

TEST_F(TensorFiles, DecidesByContent) {
  const auto copy = [&](const char* from, const char* to) {
    return write(to, base::read_file(test::golden_path(from), 1 << 20));
  };
  EXPECT_EQ(open_tensor_file(copy("files/types.gguf", "a.safetensors")).container, Container::gguf);
  EXPECT_EQ(open_tensor_file(copy("files/types.safetensors", "b.gguf")).container, Container::safetensors);
}

TEST_F(TensorFiles, RefusesWhatIsNoFile) {
  expect_refused(ErrorKind::not_found, {"absent.safetensors"},
                 [&] { open_tensor_file(folder_ / "absent.safetensors"); });
  expect_refused(ErrorKind::bad_input, {folder_.path().string(), "is a folder"},
                 [&] { open_tensor_file(folder_.path()); });
  const fs::path empty = write("empty.safetensors", "");
  expect_refused(ErrorKind::corrupt_file, {empty.string(), "empty"}, [&] { open_tensor_file(empty); });
  const fs::path inside = empty / "a.safetensors";
  expect_refused(ErrorKind::not_found, {inside.string()}, [&] { open_tensor_file(inside); });
  const fs::path fifo = folder_ / "fifo.safetensors";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  expect_refused(ErrorKind::bad_input, {fifo.string(), "not an ordinary file"}, [&] { open_tensor_file(fifo); });
  expect_refused(ErrorKind::bad_input, {"/dev/zero", "not an ordinary file"}, [&] { open_tensor_file("/dev/zero"); });
  const fs::path loop = folder_ / "loop.safetensors";
  fs::create_symlink(loop, loop);
  expect_refused(ErrorKind::bad_input, {loop.string()}, [&] { open_tensor_file(loop); });
}

}  // namespace
}  // namespace calotype::files
