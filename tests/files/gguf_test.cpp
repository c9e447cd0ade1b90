// Hostile and ordinary GGUF files. Oracle of what is valid: the package gguf 0.19 (tools/reference/files.py) and ggml's
// docs/gguf.md; the hostile ones are those that crashed other readers (tests name their issues).
#include "files/gguf.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "hostile.h"
#include "support/golden.h"

namespace calotype::files {
namespace {

using base::ErrorKind;
using nlohmann::json;

constexpr std::string_view kName = "model.gguf";
constexpr uint32_t kU32 = 4, kString = 8, kArray = 9, kU64 = 10;
constexpr uint32_t kF32 = 0, kF16 = 1, kQ8_0 = 8;

std::string text(std::string_view value) { return little_endian<uint64_t>(value.size()) + std::string(value); }
std::string pair(std::string_view key, uint32_t type, const std::string& value) {
  return text(key) + little_endian(type) + value;
}

struct Tensor {
  std::string name = "a";
  std::vector<uint64_t> shape = {4};  ///< fastest first, as in the file
  uint32_t type = kF32;
  uint64_t offset = 0;
};

struct File {
  uint32_t version = 3;
  std::vector<std::string> pairs = {};
  std::vector<Tensor> tensors = {};
  size_t data = 0;  ///< bytes after the padded header
  std::optional<uint64_t> claimed_tensors = {}, claimed_pairs = {};
  uint64_t alignment = 32;

  std::string bytes() const {
    std::string out = "GGUF" + little_endian(version) +
                      little_endian<uint64_t>(claimed_tensors.value_or(tensors.size())) +
                      little_endian<uint64_t>(claimed_pairs.value_or(pairs.size()));
    for (const std::string& pair : pairs) out += pair;
    for (const Tensor& tensor : tensors) {
      out += text(tensor.name) + little_endian(static_cast<uint32_t>(tensor.shape.size()));
      for (const uint64_t extent : tensor.shape) out += little_endian(extent);
      out += little_endian(tensor.type) + little_endian(tensor.offset);
    }
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + std::string(data, '\7');
  }
};

TensorTable parse(std::string_view bytes) { return parse_gguf(bytes_of(bytes), kName); }

void expect_all_refused(const std::vector<HostileCase>& cases) {
  for (HostileCase hostile : cases) {
    hostile.words.emplace_back(kName);
    SCOPED_TRACE(base::printable(hostile.bytes.substr(0, 300), 300));
    expect_refused(hostile.kind, hostile.words, [&] { parse(hostile.bytes); });
  }
}

TEST(Gguf, ReadsWhatThePackageWrites) {
  const json expected = json::parse(std::ifstream(test::golden_path("files/types.json")))["types.gguf"];
  const TensorFile file = open_tensor_file(test::golden_path("files/types.gguf"));
  EXPECT_EQ(file.container, Container::gguf);
  EXPECT_EQ(file.metadata, (expected["metadata"].get<std::map<std::string, std::string>>()));
  ASSERT_EQ(file.tensors.size(), expected["tensors"].size());
  for (const StoredTensor& tensor : file.tensors) {
    const json& want = expected["tensors"].at(tensor.name);
    EXPECT_EQ(traits(tensor.type).ggml, want["type"].get<int>()) << tensor.name;
    EXPECT_EQ(tensor.shape, want["shape"].get<std::vector<int64_t>>()) << tensor.name;
    std::string hex;
    for (const std::byte byte : tensor.bytes) hex += fmt::format("{:02x}", static_cast<unsigned>(byte));
    EXPECT_EQ(hex, want["bytes"].get<std::string>()) << tensor.name;
  }
}

TEST(Gguf, WritesWhatItReads) {
  const TensorTable table = parse(base::read_file(test::golden_path("files/types.gguf"), 1 << 20));
  TensorTable copy = table;
  std::string bytes = make_gguf_header(copy);
  for (const TensorEntry& entry : copy.entries) bytes.resize((bytes.size() + entry.size + 31) / 32 * 32);
  const TensorTable again = parse(bytes);
  EXPECT_EQ(again.metadata.at("text"), table.metadata.at("text"));
  EXPECT_FALSE(again.metadata.contains("general.alignment"));  // the written file's is the default
  ASSERT_EQ(again.entries.size(), table.entries.size());
  for (size_t i = 0; i < table.entries.size(); ++i) {
    EXPECT_EQ(again.entries[i].name, table.entries[i].name);
    EXPECT_EQ(again.entries[i].type, table.entries[i].type);
    EXPECT_EQ(again.entries[i].shape, table.entries[i].shape);
    EXPECT_EQ(again.entries[i].offset, copy.entries[i].offset);
  }
}

TEST(Gguf, DoesNotWriteWhatItCannotHold) {
  for (const TensorEntry& entry :
       {TensorEntry{.name = "a", .type = TensorType::f8_e4m3, .shape = {4}, .size = 4},
        TensorEntry{.name = "a", .type = TensorType::f32, .shape = {0}, .size = 0},
        TensorEntry{.name = "a", .type = TensorType::f32, .shape = {1, 1, 1, 1, 1}, .size = 4},
        TensorEntry{.name = "", .type = TensorType::f32, .shape = {1}, .size = 4}}) {
    TensorTable table{.entries = {entry}};
    expect_refused(ErrorKind::unsupported, {"tensor " + entry.name, shape_text(entry.shape), "GGUF"},
                   [&] { make_gguf_header(table); });
  }
}

TEST(Gguf, AcceptsWhatTheFormatAllows) {
  EXPECT_TRUE(parse(File{}.bytes()).entries.empty());
  EXPECT_TRUE(parse(File{.version = 2}.bytes()).entries.empty());
  EXPECT_EQ(parse(File{.tensors = {{.shape = {}}}, .data = 4}.bytes()).entries.front().shape, std::vector<int64_t>{});
  // Offsets out of order, a hole between tensors, bytes after the last.
  const TensorTable table =
      parse(File{.tensors = {{.name = "late", .offset = 96}, {.name = "early"}}, .data = 200}.bytes());
  EXPECT_EQ(table.entries.front().name, "early");
  const auto nested = little_endian(kArray) + little_endian<uint64_t>(1) + little_endian(kString) +
                      little_endian<uint64_t>(1) + text("x");
  EXPECT_TRUE(parse(File{.pairs = {pair("k", kArray, nested)}}.bytes()).metadata.empty());
  const File wide{.pairs = {pair("general.alignment", kU32, little_endian<uint32_t>(4096))},
                  .tensors = {{}},
                  .data = 16,
                  .alignment = 4096};
  EXPECT_EQ(parse(wide.bytes()).entries.front().offset, 4096u);
}

TEST(Gguf, CutsLongTextBetweenCharacters) {
  const TensorTable table = parse(File{.pairs = {pair("k", kString, text("x" + repeated("猫", 30'000)))}}.bytes());
  EXPECT_EQ(table.metadata.at("k"), "x" + repeated("猫", 65535 / 3));  // 65536 bytes would end inside a character
}

TEST(Gguf, RefusesOtherVersionsAndByteOrders) {
  expect_all_refused({
      {File{.version = 1}.bytes(), {"version 1", "expected 3"}, ErrorKind::unsupported},
      {File{.version = 4}.bytes(), {"version 4", "expected 3"}, ErrorKind::unsupported},
      {File{.version = 0x03000000}.bytes(), {"big-endian", "expected 3 (little-endian)"}, ErrorKind::unsupported},
  });
}

TEST(Gguf, RefusesEveryTruncation) {
  const std::string whole =
      File{.pairs = {pair("k", kString, text("value"))}, .tensors = {{}, {.name = "b", .offset = 32}}, .data = 48}
          .bytes();
  EXPECT_EQ(parse(whole).entries.size(), 2u);
  for (size_t size = 0; size < whole.size(); ++size)
    expect_refused(ErrorKind::corrupt_file, {std::string(kName)},
                   [&] { parse(std::string_view(whole).substr(0, size)); });
}

TEST(Gguf, RefusesCountsThatTheFileCannotHold) {
  const auto array = [](uint32_t type, uint64_t count) {
    return little_endian(type) + little_endian(count) + std::string(64, '\0');
  };
  expect_all_refused({
      // llama.cpp 15711: number of tensors × size of a record wraps.
      {File{.claimed_tensors = UINT64_MAX}.bytes(), {"list of tensors", "18446744073709551615", "are left"}},
      {File{.data = 1000, .claimed_tensors = uint64_t{1} << 61}.bytes(), {"list of tensors", "2305843009213693952"}},
      {File{.claimed_pairs = UINT64_MAX}.bytes(), {"list of key-value pairs", "18446744073709551615"}},
      {File{.claimed_pairs = 1}.bytes(), {"list of key-value pairs", "claims 1 items"}},
      {File{.data = 13'000'000, .claimed_pairs = 100'001}.bytes(),
       {"100001 key-value pairs", "limits of 1000000 and 100000"}},
      {File{.data = 25'000'000, .claimed_tensors = 1'000'001}.bytes(), {"1000001 tensors", "limits of 1000000"}},
      // llama.cpp 18674: elements × size of an element wraps.
      {File{.pairs = {pair("k", kArray, array(kU64, uint64_t{1} << 61))}}.bytes(),
       {"k claims 2305843009213693952 items"}},
      {File{.pairs = {pair("k", kArray, array(kString, UINT64_MAX / 8))}}.bytes(),
       {"k claims 2305843009213693951 items"}},
      {File{.pairs = {pair("k", kArray, array(kArray, UINT64_MAX))}}.bytes(), {"k claims 18446744073709551615 items"}},
      {File{.pairs = {pair("k", kArray, array(13, 1))}}.bytes(), {"key k", "value type 13", "expected 0 to 12"}},
  });
  const std::string nested =
      repeated(little_endian(kArray) + little_endian<uint64_t>(1), 100'000) + std::string(64, '\0');
  expect_all_refused({{File{.pairs = {pair("k", kArray, nested)}}.bytes(), {"key k nests arrays more than 4 deep"}}});
}

TEST(Gguf, RefusesBadKeysAndTexts) {
  const auto claims = [](uint64_t length) { return little_endian(length) + std::string(100, 'x'); };
  expect_all_refused({
      {File{.pairs = {pair("", kU32, little_endian(7))}}.bytes(), {"a key has 0 bytes"}},  // llama.cpp 24263
      {File{.pairs = {pair(std::string(70'000, 'k'), kU32, little_endian(7))}}.bytes(),
       {"a key has 70000 bytes", "65536"}},
      {File{.pairs = {claims(uint64_t{1} << 30)}}.bytes(), {"a key", "1073741824 more bytes needed"}},
      {File{.pairs = {pair("k", kString, claims(uint64_t{1} << 30))}}.bytes(),
       {"inside k", "1073741824 more bytes needed"}},  // ggml 1516
      {File{.pairs = {pair("k", kString, claims(UINT64_MAX))}}.bytes(),
       {"inside k", "18446744073709551615 more bytes needed"}},
      {File{.pairs = {pair("k", kString, text("caf\xE9"))}}.bytes(), {"k is not valid UTF-8 at byte"}},
      {File{.pairs = {pair("\xFF", kU32, little_endian(7))}}.bytes(), {"a key is not valid UTF-8"}},
      {File{.pairs = {pair("k", 13, std::string(64, '\0'))}}.bytes(), {"key k", "value type 13"}},
      {File{.pairs = {pair("k", 0xFFFFFFFF, std::string(64, '\0'))}}.bytes(), {"key k", "value type 4294967295"}},
      {File{.pairs = {pair("k", kU32, little_endian(7)), pair("k", kU32, little_endian(8))}}.bytes(),
       {"key k appears twice"}},
  });
}

TEST(Gguf, RefusesBadAlignments) {
  const auto aligned = [](uint32_t type, const std::string& value) {
    return File{.pairs = {pair("general.alignment", type, value)}, .tensors = {{}}, .data = 64}.bytes();
  };
  const auto number = [&](uint32_t value) { return aligned(kU32, little_endian(value)); };
  expect_all_refused({
      {aligned(kU64, little_endian<uint64_t>(32)),
       {"general.alignment", "value type 10", "expected 4"}},  // llama.cpp 26318
      {aligned(kString, text("32")), {"general.alignment", "value type 8", "expected 4"}},
      {aligned(kArray, little_endian(kU32) + little_endian<uint64_t>(1) + little_endian(32)),
       {"general.alignment", "value type 9"}},
      {number(0), {"general.alignment is 0", "power of two"}},
      {number(33), {"general.alignment is 33", "power of two"}},
      {number(1 << 30), {"general.alignment is 1073741824", "65536"}},  // ggml 1516
      {number(0x80000000), {"general.alignment is 2147483648", "65536"}},
  });
}

TEST(Gguf, RefusesBadTensors) {
  const auto one = [](const Tensor& tensor, size_t data = 64) {
    return File{.tensors = {tensor}, .data = data}.bytes();
  };
  constexpr uint64_t kLarge = uint64_t{1} << 32;
  expect_all_refused({
      {one({.name = ""}), {"a tensor's name has 0 bytes"}},
      {one({.name = std::string(2000, 'n')}), {"a tensor's name has 2000 bytes", "1 to 1024"}},
      {one({.name = "\xC3"}), {"a tensor's name is not valid UTF-8"}},
      {one({.shape = {4, 0}}), {"tensor a", "dimension of 0"}},  // ggml 1517
      {one({.shape = {UINT64_MAX}}), {"tensor a", "dimension of 18446744073709551615"}},
      {one({.shape = {1, 1, 1, 1, 4}}), {"tensor a", "5 dimensions", "at most 4"}},  // ggml 709
      {one({.shape = std::vector<uint64_t>(100'000, 1)}), {"tensor a", "100000 dimensions"}},
      {one({.shape = {kLarge, kLarge}}), {"tensor a", "[4294967296, 4294967296]", "f32"}},
      {one({.shape = {kLarge, kLarge / 4}}), {"tensor a", "f32"}},  // 2^62 elements of 4 bytes
      {one({.shape = {33}, .type = kQ8_0}), {"tensor a", "[33]", "q8_0", "multiples of 32"}},
      {one({.shape = {16, 2}, .type = kQ8_0}), {"tensor a", "[2, 16]", "q8_0", "multiples of 32"}},
      {one({.shape = {}, .type = kQ8_0}), {"tensor a", "[]", "q8_0"}},
      {one({.type = 4}), {"tensor a", "ggml type 4", "supported: F32"}, ErrorKind::unsupported},  // q4_2, removed
      {one({.type = 0xFFFFFFFF}), {"tensor a", "ggml type 4294967295"}, ErrorKind::unsupported},
      {one({.offset = 16}), {"tensor a", "starts at data byte 16", "multiple of 32"}},
      {one({.offset = 64}), {"tensor a", "needs 16 bytes at data byte 64", "has 64 bytes"}},
      {one({.offset = uint64_t{0} - 32}),
       {"tensor a", "at data byte 18446744073709551584"}},  // llama.cpp 24759, mlx 4179
      {one({.shape = {17}}), {"tensor a", "needs 68 bytes", "has 64 bytes"}},
      {one({}, 0), {"tensor a", "needs 16 bytes", "has 0 bytes"}},
  });
}

TEST(Gguf, RefusesTensorsThatShareNamesOrPlaces) {
  const auto two = [](const Tensor& b) { return File{.tensors = {{.shape = {9}}, b}, .data = 128}.bytes(); };
  EXPECT_EQ(parse(two({.name = "b", .offset = 64})).entries.size(), 2u);
  expect_all_refused({
      {two({.name = "a", .offset = 64}), {"tensor a appears twice"}},
      {two({.name = "b", .offset = 32}), {"tensor b", "starts at data byte 32", "ends at 36", "overlap"}},
      {two({.name = "b", .offset = 0}), {"starts at data byte 0", "overlap"}},
      {two({.name = "b", .shape = {2}, .type = kF16, .offset = 32}), {"tensor b", "overlap"}},
  });
}

}  // namespace
}  // namespace calotype::files
