// Names of all layouts, and files whose tensors contradict each other. What is right about ordinary checkpoints of
// every layout, tests/pipeline shows with whole models.
#include "weights/tensor_index.h"

#include <fstream>

#include "base/error.h"
#include "files/shard_index.h"
#include "support/golden.h"

namespace calotype::weights {
namespace {

using base::ErrorKind;
using files::TensorType;

/// Tensors in memory that belong to a file which only lends its name.
class Indexing : public ::testing::Test {
 protected:
  files::StoredTensor tensor(const std::string& name, const std::vector<int64_t>& shape,
                             TensorType type = TensorType::u8) {
    static const std::vector<std::byte> zeros(1 << 16);
    const auto bytes = *files::bytes_of(type, *files::element_count(shape));
    return {.name = name, .type = type, .shape = shape, .bytes = std::span(zeros).first(bytes), .file = file_};
  }
  files::StoredTensor weight(const std::string& name, const std::vector<int64_t>& shape) {
    return tensor(name, shape, TensorType::bf16);
  }
  Checkpoint index(std::vector<files::StoredTensor> tensors, std::map<std::string, std::string> metadata = {}) {
    return index_tensors({{.path = file_->path(), .tensors = std::move(tensors), .metadata = std::move(metadata)}});
  }
  void expect_refused(ErrorKind kind, const std::vector<std::string>& words,
                      const std::vector<files::StoredTensor>& tensors,
                      const std::map<std::string, std::string>& metadata = {}) {
    try {
      index(tensors, metadata);
      ADD_FAILURE() << "accepted, expected a message with " << words.front();
    } catch (const base::Error& error) {
      EXPECT_EQ(base::name(error.kind()), base::name(kind)) << error.what();
      const std::string message = error.what();
      EXPECT_EQ(message.find(file_->path().string()), 0u) << message;
      for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
    }
  }

  test::TemporaryFolder folder_;
  std::shared_ptr<const files::MappedFile> file_ = files::MappedFile::open([this] {
    std::ofstream(folder_ / "flux.safetensors") << "x";
    return folder_ / "flux.safetensors";
  }());
};

const std::string kToQ = "transformer_blocks.0.attn.to_q.weight", kToK = "transformer_blocks.0.attn.to_k.weight",
                  kToV = "transformer_blocks.0.attn.to_v.weight", kQkv = "double_blocks.0.img_attn.qkv.weight";

TEST_F(Indexing, StacksPieces) {
  const Checkpoint found =
      index({weight(kToV, {5, 3}), weight(kToQ, {4, 3}), weight(kToK, {4, 3}), weight("noise", {1})});
  const Source* qkv = found.parts.at(Component::transformer).find(kQkv);
  ASSERT_NE(qkv, nullptr);
  EXPECT_EQ(qkv->shape(), (std::vector<int64_t>{13, 3}));
  EXPECT_EQ(qkv->parts[0].tensor.name, kToQ);
  EXPECT_EQ(found.unknown.size(), 1u);
}

TEST_F(Indexing, RefusesPiecesThatDoNotFit) {
  expect_refused(ErrorKind::corrupt_file, {"only some of the 3 pieces", kQkv},
                 {weight(kToQ, {4, 3}), weight(kToV, {4, 3})});
  expect_refused(ErrorKind::corrupt_file, {kToK, "[4, 2]", "does not stack", "[4, 3]"},
                 {weight(kToQ, {4, 3}), weight(kToK, {4, 2}), weight(kToV, {4, 3})});
  expect_refused(ErrorKind::corrupt_file, {"[4]", "does not stack"},
                 {weight(kToQ, {4, 3}), weight(kToK, {4}), weight(kToV, {4, 3})});
  for (const auto& tensors : std::vector<std::vector<files::StoredTensor>>{
           {weight(kQkv, {12, 3}), weight(kToK, {4, 3}), weight(kToV, {4, 3})},
           {weight(kToK, {4, 3}), weight(kToV, {4, 3}), weight(kQkv, {12, 3})}})
    expect_refused(ErrorKind::conflict, {kQkv, "both whole and in pieces"}, tensors);
  expect_refused(ErrorKind::conflict, {"img_in.weight is also in"},
                 {weight("x_embedder.weight", {4, 3}), weight("img_in.weight", {4, 3})});
}

TEST_F(Indexing, RefusesShapesWithoutNumbers) {
  // Their extents may be anything, so that adding those of the pieces would overflow.
  const std::vector<int64_t> shape = {INT64_MAX, 0};
  expect_refused(ErrorKind::corrupt_file, {kToQ, "[9223372036854775807, 0]", "no numbers"},
                 {weight(kToQ, shape), weight(kToK, shape), weight(kToV, shape)});
  expect_refused(ErrorKind::corrupt_file, {"img_in.bias", "[]"}, {weight("img_in.bias", {})});
  expect_refused(ErrorKind::unsupported, {"img_in.bias", "vector of type q8_0"},
                 {tensor("img_in.bias", {32}, TensorType::q8_0)});
}

TEST_F(Indexing, RefusesOtherPackings) {
  expect_refused(ErrorKind::unsupported, {"img_in.weight.absmax", "bitsandbytes"},
                 {tensor("img_in.weight.absmax", {4})});
  expect_refused(ErrorKind::unsupported, {"img_in.scale_weight", "[2]", "one f32 number"},
                 {tensor("img_in.scale_weight", {2}, TensorType::f32)});
}

TEST_F(Indexing, ReadsItsOwnConfiguration) {
  const std::string key = "calotype.config";
  const auto found = index({weight("img_in.weight", {4, 3})}, {{key, R"({"transformer":{"axes":[1]},"VAE":7})"}});
  EXPECT_EQ(found.parts.at(Component::transformer).config["axes"][0], 1);
  expect_refused(ErrorKind::corrupt_file, {key, "not valid JSON"}, {weight("img_in.weight", {4, 3})}, {{key, "{"}});
  expect_refused(ErrorKind::corrupt_file, {key, "nested"}, {weight("img_in.weight", {4, 3})},
                 {{key, "{\"transformer\":" + std::string(1 << 20, '[')}});
}

std::optional<std::string> ours(std::string_view name, int vae_levels = 4) {
  const auto key = canonical_key(name, {.vae_levels = vae_levels});
  return key ? std::optional(key->name) : std::nullopt;
}

TEST(Names, KnowOnlyWhatTheTableHas) {
  EXPECT_EQ(ours("model.diffusion_model.double_blocks.18.img_attn.norm.key_norm.weight"),
            "double_blocks.18.img_attn.norm.key_norm.scale");
  EXPECT_EQ(ours("decoder.up_blocks.3.resnets.0.conv1.weight"), "decoder.up.0.block.0.conv1.weight");
  for (const char* name :
       {"", ".", "weight", ".weight", "img_in", "img_in.weight.", "img_in.scale", "img_in.weigh",
        "double_blocks..img_mod.lin.weight", "double_blocks.1000.img_mod.lin.weight",
        "double_blocks.-1.img_mod.lin.weight", "double_blocks.007.img_mod.lin.weight",
        "double_blocks.*.img_mod.lin.weight", "../img_in.weight", "model.model.img_in.weight", "IMG_IN.weight"})
    EXPECT_EQ(ours(name), std::nullopt) << name;
  // A level that the autoencoder does not have must not become another one.
  EXPECT_EQ(ours("decoder.up_blocks.4.resnets.0.conv1.weight"), std::nullopt);
  EXPECT_EQ(
      key_context({"decoder.up_blocks.2.resnets.0.conv1.weight", "decoder.up_blocks.99999999999.x", "decoder.up.-7."})
          .vae_levels,
      3);
}

TEST(Names, ThereAndBackIsTheIdentity) {
  const auto index = files::open_shards(
      test::golden_path("models/m2_schnell/transformer/diffusion_pytorch_model.safetensors.index.json"));
  int pieces = 0;
  for (const files::TensorFile& file : index)
    for (const files::StoredTensor& stored : file.tensors) {
      const auto key = canonical_key(stored.name, {});
      ASSERT_TRUE(key) << stored.name;
      const auto back = diffusers_keys(key->name, {});
      ASSERT_EQ(back.size(), static_cast<size_t>(key->parts)) << stored.name;
      EXPECT_EQ(back[static_cast<size_t>(key->part)].name, stored.name);
      ++pieces;
    }
  EXPECT_GT(pieces, 80);
}

}  // namespace
}  // namespace calotype::weights
