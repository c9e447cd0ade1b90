// Hostile and ordinary index and configuration files.
#include "files/shard_index.h"

#include <sys/stat.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "hostile.h"
#include "support/golden.h"

namespace calotype::files {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;

constexpr std::string_view kName = "model.safetensors.index.json";

std::string index_with(std::string_view shard) {
  return nlohmann::json{{"weight_map", {{"some.weight", shard}}}}.dump();
}

/// A safetensors file with one tensor of one byte.
std::string shard_with(std::string_view tensor) {
  const std::string header = fmt::format(R"({{"{}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}})", tensor);
  return little_endian<uint64_t>(header.size()) + header + "\7";
}

TEST(JsonObject, AcceptsAnyOrdinaryObject) {
  const auto object =
      parse_json_object("\xEF\xBB\xBF{\"a\": [1, -2.5, null, true, \"\\u00e9\"], \"b\": {}}", "config.json");
  EXPECT_EQ(object["a"][4], "é");
  EXPECT_EQ(read_json_object(test::golden_path("models/m1_dev/transformer/config.json"))["_class_name"],
            "FluxTransformer2DModel");
}

TEST(JsonObject, RefusesWhatIsNone) {
  for (const HostileCase& hostile : std::vector<HostileCase>{
           {"", {"not valid JSON"}},
           {"null", {"a JSON null", "expected an object"}},
           {"[]", {"a JSON array", "expected an object"}},
           {"\"{}\"", {"a JSON string"}},
           {"7", {"a JSON number"}},
           {"{", {"not valid JSON near byte 2"}},
           {"{} x", {"not valid JSON"}},
           {"{\"a\":}", {"not valid JSON near byte 6", "starts with \"{\"a\":}\""}},
           {"{'a':1}", {"not valid JSON"}},
           {"{\"a\":NaN}", {"not valid JSON"}},
           {"{\"a\":1e999}", {"a number that is too large"}},
           {"{\"a\":\"\xFF\"}", {"not valid JSON", "byte 7"}},
           {"{\"\xED\xA0\x80\":1}", {"not valid JSON"}},
           {std::string("\xFF\xFE{\0}\0", 6), {"not valid JSON", "\\xff\\xfe"}},  // UTF-16
           {std::string("{}\0{\"a\":1}", 10), {"not valid JSON near byte 3"}},
           {"<!DOCTYPE html><title>401</title>", {"not valid JSON", "<!DOCTYPE html>"}},
       }) {
    std::vector<std::string> words = hostile.words;
    words.emplace_back("config.json");
    expect_refused(hostile.kind, words, [&] { parse_json_object(hostile.bytes, "config.json"); });
  }
}

TEST(JsonObject, RefusesBombs) {
  const auto refuse = [](const std::string& text, const std::vector<std::string>& words, int64_t limit) {
    expect_refused(
        ErrorKind::corrupt_file, words, [&] { parse_json_object(text, "config.json"); }, limit);
  };
  refuse("{\"a\":" + std::string(1 << 20, '['), {"config.json", "nested more than 32 deep"}, 1 << 20);
  refuse(repeated("{\"a\":", 1 << 18), {"config.json", "nested more than 32 deep"}, 1 << 20);
  refuse("{\"a\":[" + repeated("[],", 5 << 20) + "1]}", {"config.json", "more than 1000000 keys and values"}, 10 << 20);
  refuse("{\"a\":[" + repeated("{},", 5 << 20) + "1]}", {"config.json", "more than 1000000 keys and values"}, 10 << 20);

  const test::TemporaryFolder folder;
  base::write_file(folder / "config.json", "{\"a\":\"" + std::string(17 << 20, 'x') + "\"}");
  expect_refused(
      ErrorKind::bad_input, {(folder / "config.json").string(), "larger than the 16777216 bytes"},
      [&] { read_json_object(folder / "config.json"); }, 40 << 20);
}

// Looking through the members of the list after each of its objects would take minutes.
TEST(JsonObject, TakesLittleTimeForManySmallObjects) {
  const std::clock_t start = std::clock();
  EXPECT_EQ(parse_json_object("{\"a\":[" + repeated("{},", 500'000) + "1]}", "config.json")["a"].size(), 500'001u);
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 20);  // 0.1 s, and sanitizers
}

TEST(JsonObject, RefusesWhatIsNoFile) {
  const test::TemporaryFolder folder;
  expect_refused(ErrorKind::not_found, {"config.json"}, [&] { read_json_object(folder / "config.json"); });
  expect_refused(ErrorKind::bad_input, {"directory"}, [&] { read_json_object(folder.path()); });
  ASSERT_EQ(mkfifo((folder / "fifo").c_str(), 0600), 0);
  expect_refused(ErrorKind::corrupt_file, {"fifo", "not valid JSON"}, [&] { read_json_object(folder / "fifo"); });
  fs::create_symlink(folder / "loop", folder / "loop");
  expect_refused(ErrorKind::bad_input, {"loop"}, [&] { read_json_object(folder / "loop"); });
}

TEST(ShardIndex, ReadsWhatDiffusersWrites) {
  const fs::path index =
      test::golden_path("models/m2_schnell/transformer/diffusion_pytorch_model.safetensors.index.json");
  const auto shards = parse_shard_index(base::read_file(index, 1 << 20), kName);
  EXPECT_EQ(shards.at("x_embedder.weight").substr(0, 24), "diffusion_pytorch_model-");
  size_t tensors = 0;
  const std::vector<TensorFile> files = open_shards(index);
  for (const TensorFile& file : files) tensors += file.tensors.size();
  EXPECT_EQ(files.size(), 3u);
  EXPECT_EQ(tensors, shards.size());
}

TEST(ShardIndex, RefusesNamesThatLeadElsewhere) {
  EXPECT_EQ(parse_shard_index(index_with("model-00001-of-00002.safetensors"), kName).size(), 1u);
  EXPECT_EQ(parse_shard_index(index_with("..a"), kName).size(), 1u);
  for (const std::string_view shard :
       {std::string_view("/etc/passwd"), std::string_view("../other.safetensors"), std::string_view("a/../../b"),
        std::string_view("sub/a.safetensors"), std::string_view("a/"), std::string_view("."), std::string_view(".."),
        std::string_view(""), std::string_view("..\\a"), std::string_view("C:\\a"), std::string_view("a\0b", 3),
        std::string_view("a\nb"), std::string_view("\x1b[2J")})
    expect_refused(ErrorKind::corrupt_file, {std::string(kName), "some.weight", "plain name"},
                   [&] { parse_shard_index(index_with(shard), kName); });
  expect_refused(ErrorKind::corrupt_file, {"plain name"},
                 [&] { parse_shard_index(index_with(std::string(300, 'x')), kName); });
}

TEST(ShardIndex, RefusesWrongTypes) {
  for (const std::string_view text :
       {"{}", R"({"weight_map":null})", R"({"weight_map":[]})", R"({"weight_map":"a.safetensors"})"})
    expect_refused(ErrorKind::corrupt_file, {std::string(kName), "weight_map"},
                   [&] { parse_shard_index(text, kName); });
  for (const std::string_view value : {"1", "null", "[\"a\"]", "{}", "true"})
    expect_refused(ErrorKind::corrupt_file, {std::string(kName), "tensor t", std::string(value), "plain name"},
                   [&] { parse_shard_index(fmt::format(R"({{"weight_map":{{"t":{}}}}})", value), kName); });
}

TEST(ShardIndex, RefusesIncompleteModels) {
  const test::TemporaryFolder folder;
  const fs::path index = folder / "model.safetensors.index.json";
  base::write_file(index, R"({"weight_map":{"one":"a.safetensors","two":"b.safetensors","three":"b.safetensors"}})");
  base::write_file(folder / "a.safetensors", shard_with("one"));
  expect_refused(ErrorKind::not_found, {"b.safetensors: missing", "2 of 3 tensors"}, [&] { open_shards(index); });
  base::write_file(folder / "b.safetensors", shard_with("two"));
  expect_refused(ErrorKind::corrupt_file, {"b.safetensors", "lacks tensor three"}, [&] { open_shards(index); });
  base::write_file(folder / "b.safetensors", shard_with("three").substr(0, 30));
  expect_refused(ErrorKind::corrupt_file, {"b.safetensors", "the file has 30"}, [&] { open_shards(index); });
  fs::remove(folder / "b.safetensors");
  fs::create_symlink("b.safetensors", folder / "b.safetensors");
  expect_refused(ErrorKind::not_found, {"b.safetensors: missing"}, [&] { open_shards(index); });
}

}  // namespace
}  // namespace calotype::files
