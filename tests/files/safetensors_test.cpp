// Hostile and ordinary safetensors files. Oracle of what is valid: the package safetensors 0.8
// (tools/reference/files.py) and the format's README.
#include "files/safetensors.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "hostile.h"
#include "support/golden.h"

namespace calotype::files {
namespace {

using base::ErrorKind;
using nlohmann::json;

constexpr std::string_view kName = "model.safetensors";

std::string with_header(std::string_view header, size_t data = 0) {
  return little_endian<uint64_t>(header.size()) + std::string(header) + std::string(data, '\7');
}

/// A file with this one entry.
std::string with_entry(std::string_view entry, size_t data) {
  return with_header(fmt::format("{{\"a\":{}}}", entry), data);
}

TensorTable parse(std::string_view bytes) { return parse_safetensors(bytes_of(bytes), kName); }

void expect_all_refused(const std::vector<HostileCase>& cases) {
  for (HostileCase hostile : cases) {
    hostile.words.emplace_back(kName);
    SCOPED_TRACE(base::printable(hostile.bytes.substr(0, 300), 300));
    expect_refused(hostile.kind, hostile.words, [&] { parse(hostile.bytes); });
  }
}

TEST(Safetensors, ReadsWhatThePackageWrites) {
  const auto path = test::golden_path("files/types.safetensors");
  const json expected = json::parse(std::ifstream(test::golden_path("files/types.json")))["types.safetensors"];
  const TensorFile file = open_tensor_file(path);
  EXPECT_EQ(file.container, Container::safetensors);
  EXPECT_EQ(file.metadata, (expected["metadata"].get<std::map<std::string, std::string>>()));
  ASSERT_EQ(file.tensors.size(), expected["tensors"].size());
  for (const StoredTensor& tensor : file.tensors) {
    const json& want = expected["tensors"].at(tensor.name);
    EXPECT_EQ(traits(tensor.type).safetensors, want["type"].get<std::string>()) << tensor.name;
    EXPECT_EQ(tensor.shape, want["shape"].get<std::vector<int64_t>>()) << tensor.name;
    std::string hex;
    for (const std::byte byte : tensor.bytes) hex += fmt::format("{:02x}", static_cast<unsigned>(byte));
    EXPECT_EQ(hex, want["bytes"].get<std::string>()) << tensor.name;
  }
}

TEST(Safetensors, WritesWhatItReads) {
  const std::string bytes = base::read_file(test::golden_path("files/types.safetensors"), 1 << 20);
  const TensorTable table = parse(bytes);
  TensorTable copy = table;
  const std::string header = make_safetensors_header(copy);
  const TensorTable again = parse(header + bytes.substr(table.entries.front().offset));
  EXPECT_EQ(header.size() % 8, 0u);
  EXPECT_EQ(again.metadata, table.metadata);
  ASSERT_EQ(again.entries.size(), table.entries.size());
  for (size_t i = 0; i < table.entries.size(); ++i) {
    EXPECT_EQ(again.entries[i].name, table.entries[i].name);
    EXPECT_EQ(again.entries[i].shape, table.entries[i].shape);
    EXPECT_EQ(again.entries[i].offset, copy.entries[i].offset);
  }
  TensorTable quantised{.entries = {{.name = "a", .type = TensorType::q8_0, .shape = {32}, .size = 34}}};
  expect_refused(ErrorKind::unsupported, {"tensor a", "q8_0"}, [&] { make_safetensors_header(quantised); });
}

TEST(Safetensors, AcceptsWhatTheFormatAllows) {
  EXPECT_TRUE(parse(with_header("{}")).entries.empty());
  EXPECT_TRUE(parse(with_header("{}      ")).entries.empty());  // padding
  // Order in the header is not order in the file, and empty tensors may stand anywhere between others.
  const TensorTable table = parse(with_header(R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},
      "none":{"dtype":"F32","shape":[4,0],"data_offsets":[3,3]},
      "a":{"data_offsets":[0,3],"shape":[3,1],"dtype":"I8"}})",
                                              5));
  ASSERT_EQ(table.entries.size(), 3u);
  EXPECT_EQ(table.entries[0].name + table.entries[1].name + table.entries[2].name, "anoneb");
}

TEST(Safetensors, RefusesLengthsThatDoNotFit) {
  const auto length = [](uint64_t value) { return little_endian(value) + "{}"; };
  expect_all_refused({
      {"", {"0 bytes"}},
      {"abc", {"3 bytes", "too few"}},
      {length(3), {"claims 3 bytes", "the file has 10"}},
      {length(1000), {"claims 1000 bytes", "the file has 10"}},
      {length(UINT64_MAX), {"claims 18446744073709551615 bytes", "the file has 10"}},
      {length(UINT64_MAX - 7), {"claims 18446744073709551608 bytes"}},  // plus 8 is 0
      {length(uint64_t{1} << 63), {"claims 9223372036854775808 bytes"}},
  });
}

TEST(Safetensors, SaysLimitWhenTheHeaderIsTooLong) {
  // Files with such headers exist (safetensors issue 668): they are not damaged, only beyond what the format allows.
  const test::TemporaryFolder folder;
  const auto path = folder / "large.safetensors";
  std::ofstream(path, std::ios::binary) << little_endian<uint64_t>(kMaxSafetensorsHeader + 1) << "{";
  std::filesystem::resize_file(path, 8 + kMaxSafetensorsHeader + 1);  // a sparse file
  expect_refused(ErrorKind::unsupported, {path.string(), "limit", "100000000", "100000001"},
                 [&] { open_tensor_file(path); });
}

TEST(Safetensors, RefusesHeadersThatAreNoJsonObject) {
  expect_all_refused({
      {with_header(""), {"expected \"{\""}},
      {with_header(" {}"), {"starts with \" {}\"", "expected \"{\""}},
      {with_header("[]"), {"expected \"{\""}},
      {with_header("\xEF\xBB\xBF{}"), {"expected \"{\""}},
      {with_header("{\"a\":"), {"not valid JSON", "byte"}},
      {with_header("{}x"), {"not valid JSON"}},
      {with_header("{}{}"), {"not valid JSON"}},
      {with_header("{/**/}"), {"not valid JSON"}},
      {with_header("{\"a\":NaN}"), {"not valid JSON"}},
      {with_header(std::string("{}\0", 3)), {"a NUL at byte 10"}},
      {with_header("{\"\xFF\":{}}"), {"UTF-8", "byte 10"}},
      {with_header("{\"\xED\xA0\x80\":{}}"), {"UTF-8"}},        // a surrogate
      {with_header("{\"caf\xE9\":{}}"), {"UTF-8", "byte 13"}},  // Latin-1
  });
}

TEST(Safetensors, RefusesJsonBombs) {
  expect_all_refused({
      {with_header("{\"a\":" + std::string(1 << 20, '[')), {"header entry a", "a list", "expected an object"}},
      {with_header(repeated("{\"a\":", 1 << 18)), {"tensor a", "field a"}},
      {with_entry("{\"shape\":" + std::string(1 << 20, '['), 0), {"tensor a", "shape", "a list"}},
      {with_entry("{\"shape\":[" + repeated("1,", 1 << 20), 0), {"tensor a", "shape", "more than 16"}},
      {with_header("{\"__metadata__\":{\"x\":{\"y\":"), {"__metadata__", "x", "an object", "expected text"}},
  });
  std::string pairs = "{\"__metadata__\":{\"p\":\"\"";
  for (int i = 0; i < 100'000; ++i) pairs += fmt::format(",\"{}\":\"\"", i);
  expect_refused(
      ErrorKind::corrupt_file, {"__metadata__", "limit of 100000"}, [&] { parse(with_header(pairs + "}}")); },
      40 << 20);
}

TEST(Safetensors, RefusesSizesThatContradictEachOther) {
  const auto entry = [](std::string_view shape, std::string_view offsets, size_t data = 24,
                        std::string_view type = "F32") {
    return with_entry(fmt::format(R"({{"dtype":"{}","shape":[{}],"data_offsets":[{}]}})", type, shape, offsets), data);
  };
  expect_all_refused({
      {entry("2,3", "0,20"), {"tensor a", "[2, 3]", "f32", "needs 24 bytes", "span 20"}},
      {entry("2,3", "0,28"), {"needs 24 bytes", "span 28"}},
      {entry("", "0,8"), {"shape []", "needs 4 bytes", "span 8"}},
      {entry("6", "24,0"), {"tensor a", "data_offsets is [24, 0]", "expected [begin, end]"}},
      {entry("6", "0,24", 20), {"tensor a", "ends at data byte 24", "the file has 20"}},
      {entry("6", "9223372036854775783,9223372036854775807"), {"tensor a", "starts at data byte 9223372036854775783"}},
      {entry("4294967296,4294967296", "0,0"), {"tensor a", "needs too many bytes", "span 0"}},
      {entry("2305843009213693952,8", "0,0"), {"needs too many bytes"}},
      {entry("4611686018427387904", "0,0"), {"needs too many bytes"}},  // times 4 bytes is 0 modulo 2^64
      {entry("9223372036854775808", "0,0"), {"shape holds 9223372036854775808", "2^63 - 1"}},
      {entry("18446744073709551616", "0,0"), {"tensor a", "shape", "expected a list of whole numbers"}},
      {entry("-1", "0,24"), {"tensor a", "shape holds -1", "whole numbers from 0"}},
      {entry("6", "-24,0"), {"tensor a", "data_offsets holds -24"}},
      {entry("6", "0"), {"data_offsets is [0]", "expected [begin, end]"}},
      {entry("6", "0,24,24"), {"data_offsets is [0, 24, 24]"}},
      {entry("6", ""), {"data_offsets is []"}},
      {entry("6.0", "0,24"), {"shape holds 6.0"}},
      {entry("6", "0,24e0"), {"data_offsets holds 24e0"}},
      {entry("6", "0,1e999"), {"not valid JSON"}},
      {entry("1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,6", "0,24"), {"more than 16"}},
      {entry("6", "0,24", 24, "F4"), {"tensor a", "number type F4"}, ErrorKind::unsupported},
      {entry("6", "0,24", 24, "q8_0"), {"tensor a", "number type q8_0"}, ErrorKind::unsupported},
      {entry("6", "0,24", 24, ""), {"tensor a", "number type"}, ErrorKind::unsupported},
  });
}

TEST(Safetensors, RefusesHolesAndOverlaps) {
  const auto two = [](std::string_view first, std::string_view second, size_t data) {
    return with_header(fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":[{}]}},)"
                                   R"("b":{{"dtype":"U8","shape":[4],"data_offsets":[{}]}}}})",
                                   first, second),
                       data);
  };
  EXPECT_EQ(parse(two("4,8", "0,4", 8)).entries.size(), 2u);
  expect_all_refused({
      {two("0,4", "0,4", 8), {"tensor b", "starts at data byte 0", "expected 4", "no overlaps"}},
      {two("0,4", "2,6", 8), {"tensor b", "starts at data byte 2", "expected 4"}},
      {two("0,4", "6,10", 10), {"tensor b", "starts at data byte 6", "expected 4", "no holes"}},
      {two("2,6", "6,10", 10), {"tensor a", "starts at data byte 2", "expected 0"}},
      {two("0,4", "4,8", 7), {"tensor b", "ends at data byte 8", "the file has 7"}},
      {two("0,4", "4,8", 9), {"the tensors take 8 bytes", "the file has 9"}},
      {with_header("{}", 1), {"the tensors take 0 bytes", "the file has 1"}},
  });
}

TEST(Safetensors, RefusesDuplicates) {
  constexpr std::string_view kOne = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_all_refused({
      {with_header(fmt::format("{{\"a\":{0},\"a\":{0}}}", kOne), 1), {"names a twice"}},
      {with_header(fmt::format("{{\"a\":{0},\"\\u0061\":{0}}}", kOne), 1), {"names a twice"}},
      {with_header(R"({"__metadata__":{},"__metadata__":{}})"), {"names __metadata__ twice"}},
      {with_header(R"({"__metadata__":{"k":"1","k":"2"}})"), {"__metadata__ has k twice"}},
      {with_entry(R"({"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]})", 1), {"tensor a has dtype twice"}},
      {with_entry(R"({"dtype":"U8","shape":[1],"shape":[9],"data_offsets":[0,1]})", 1), {"tensor a has shape twice"}},
  });
}

TEST(Safetensors, RefusesMissingAndWrongFields) {
  expect_all_refused({
      {with_entry("{}", 0), {"tensor a lacks dtype"}},
      {with_entry(R"({"shape":[1],"data_offsets":[0,1]})", 1), {"tensor a lacks dtype"}},
      {with_entry(R"({"dtype":"U8","data_offsets":[0,1]})", 1), {"tensor a lacks shape"}},
      {with_entry(R"({"dtype":"U8","shape":[1]})", 1), {"tensor a lacks data_offsets"}},
      {with_entry(R"({"dtype":3,"shape":[1],"data_offsets":[0,1]})", 1), {"tensor a: dtype is 3", "expected text"}},
      {with_entry(R"({"dtype":null,"shape":[1],"data_offsets":[0,1]})", 1), {"dtype is null", "expected text"}},
      {with_entry(R"({"dtype":["U8"],"shape":[1],"data_offsets":[0,1]})", 1), {"dtype is a list", "expected text"}},
      {with_entry(R"({"dtype":{"U8":1},"shape":[1],"data_offsets":[0,1]})", 1),
       {"dtype is an object", "expected text"}},
      {with_entry(R"({"dtype":"U8","shape":1,"data_offsets":[0,1]})", 1), {"shape is 1", "expected a list"}},
      {with_entry(R"({"dtype":"U8","shape":"1","data_offsets":[0,1]})", 1), {"shape is 1", "expected a list"}},
      {with_entry(R"({"dtype":"U8","shape":["1"],"data_offsets":[0,1]})", 1), {"shape holds 1", "whole numbers"}},
      {with_entry(R"({"dtype":"U8","shape":[true],"data_offsets":[0,1]})", 1), {"shape holds true"}},
      {with_entry(R"({"dtype":"U8","shape":[[1]],"data_offsets":[0,1]})", 1), {"shape holds a list"}},
      {with_entry(R"({"dtype":"U8","shape":[{}],"data_offsets":[0,1]})", 1), {"shape holds an object"}},
      {with_entry(R"({"dtype":"U8","shape":[1],"data_offsets":false})", 1), {"data_offsets is false"}},
      {with_entry(R"({"dtype":"U8","shape":[1],"data_offsets":{"0":1}})", 1), {"data_offsets is an object"}},
      {with_entry(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1],"stride":[1]})", 1),
       {"tensor a has a field stride"}},
      {with_entry("[]", 0), {"header entry a is a list", "expected an object"}},
      {with_entry("\"U8\"", 0), {"header entry a is U8", "expected an object"}},
      {with_entry("null", 0), {"header entry a is null"}},
      {with_header(R"({"__metadata__":"pt"})"), {"__metadata__ is pt", "expected an object"}},
      {with_header(R"({"__metadata__":{"format":7}})"), {"__metadata__ entry format is 7", "expected text"}},
      {with_header(R"({"__metadata__":{"format":null}})"), {"__metadata__ entry format is null"}},
      {with_header(R"({"__metadata__":{"format":["pt"]}})"), {"__metadata__ entry format is a list"}},
  });
}

TEST(Safetensors, ShowsForeignNamesHarmlessly) {
  const std::string name = std::string("\\u001b[31m\\n\xC2\x9B\xE2\x80\xAE") + std::string(5000, 'x');
  expect_refused(ErrorKind::corrupt_file, {"\\x1b[31m\\x0a\\xc2\\x9b\\xe2\\x80\\xae", "…"},
                 [&] { parse(with_header("{\"" + name + "\":1}")); });
}

}  // namespace
}  // namespace calotype::files
