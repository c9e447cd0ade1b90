// Weights to begin with. Names and shapes are compared with the models that diffusers and transformers wrote for the
// same configurations, the numbers with the variances of the distributions that they are drawn from.
#include "train/initial_weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "base/error.h"
#include "files/shard_index.h"
#include "pipeline/model_bundle.h"
#include "support/golden.h"
#include "train/model_files.h"
#include "weights/unpack.h"

namespace calotype::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using weights::Component;

/// A golden model's folder with everything but the weights.
fs::path bare(const std::string& model, const fs::path& to) {
  fs::copy(test::golden_path("models/" + model), to, fs::copy_options::recursive);
  std::vector<fs::path> weights;
  for (const auto& entry : fs::recursive_directory_iterator(to))
    if (holds_weights(entry.path())) weights.push_back(entry.path());
  for (const fs::path& file : weights) fs::remove(file);
  return to;
}

std::map<std::string, std::vector<int64_t>> shapes(const weights::TensorIndex& index) {
  std::map<std::string, std::vector<int64_t>> out;
  for (const auto& [name, source] : index.tensors) out[name] = source.shape();
  return out;
}

at::Tensor values(const pipeline::ModelBundle& bundle, Component component, const std::string& name) {
  return weights::unpack(*bundle.part(component).find(name), at::kFloat);
}

class InitialWeights : public testing::TestWithParam<const char*> {};

TEST_P(InitialWeights, AreWhatTheConfigurationsDescribe) {
  const test::TemporaryFolder folder;
  const fs::path model = bare(GetParam(), folder / "bare");
  ASSERT_TRUE(lacks_weights(model));
  const auto made = pipeline::open_bundle({.model = with_initial_weights(model, folder / "made", 3)});
  const auto golden = pipeline::open_bundle({.model = test::golden_path(std::string("models/") + GetParam())});
  EXPECT_FALSE(lacks_weights(folder / "made"));
  EXPECT_TRUE(lacks_weights(model)) << "the given folder stays as it is";
  for (const auto& [component, index] : golden.parts)
    EXPECT_TRUE(shapes(made.part(component)) == shapes(index)) << weights::name(component);
}

INSTANTIATE_TEST_SUITE_P(Models, InitialWeights, testing::Values("m1_dev", "m2_schnell", "m3_schnell", "m4_dev"));

std::string bytes(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(InitialWeights, AreAFunctionOfTheSeed) {
  const test::TemporaryFolder folder;
  const fs::path model = bare("m4_dev", folder / "bare");
  const std::pair<const char*, uint64_t> made[] = {{"a", 3}, {"b", 3}, {"c", 4}};
  for (const auto& [name, seed] : made) with_initial_weights(model, folder / name, seed);
  for (const char* part : {"transformer", "vae", "text_encoder", "text_encoder_2"}) {
    const auto of = [&](const char* name) { return bytes(folder / name / part / "initial.safetensors"); };
    EXPECT_FALSE(of("a").empty());
    EXPECT_TRUE(of("a") == of("b")) << part;
    EXPECT_FALSE(of("a") == of("c")) << part;
  }
}

TEST(InitialWeights, PartsThatAreThereStay) {
  const test::TemporaryFolder folder;
  const fs::path model = bare("m4_dev", folder / "bare");
  const fs::path vae = "vae/diffusion_pytorch_model.safetensors";
  fs::copy_file(test::golden_path("models/m4_dev") / vae, model / vae);
  with_initial_weights(model, folder / "made", 3);
  EXPECT_TRUE(bytes(folder / "made" / vae) == bytes(model / vae));
  EXPECT_FALSE(fs::exists(folder / "made/vae/initial.safetensors"));
}

/// Sets one field of a part's configuration; null removes it.
void configure(const fs::path& model, const std::string& part, const std::string& key, const json& value) {
  const fs::path file = model / part / "config.json";
  json config = files::read_json_object(file);
  if (value.is_null())
    config.erase(key);
  else
    config[key] = value;
  std::ofstream(file) << config;
}

double deviation(const at::Tensor& t) { return t.square().mean().sqrt().item<double>(); }

// A uniform number within ±b has standard deviation b/√3. With 10,000 numbers or more the sample's is within 3 %.
TEST(InitialWeights, HaveTheStatisticsOfTheirLayers) {
  const test::TemporaryFolder folder;
  const fs::path model = bare("m4_dev", folder / "bare");
  for (const auto& [key, value] : std::map<std::string, json>{
           {"attention_head_dim", 32}, {"axes_dims_rope", {8, 12, 12}}, {"joint_attention_dim", 128}})
    configure(model, "transformer", key, value);
  configure(model, "vae", "block_out_channels", {32, 32});
  for (const auto& [key, value] : std::map<std::string, json>{{"d_model", 128}, {"d_kv", 24}})
    configure(model, "text_encoder_2", key, value);
  const auto made = pipeline::open_partial_bundle({.model = with_initial_weights(model, folder / "made", 3)});
  const auto at = [&](Component component, const char* name) { return values(made, component, name); };
  const auto expect_deviation = [&](Component component, const char* name, double expected) {
    EXPECT_NEAR(deviation(at(component, name)) / expected, 1, 0.03) << name;
  };
  const auto xavier = [](double in, double out) { return std::sqrt(2 / (in + out)); };
  const int width = 5 * 32;
  expect_deviation(Component::transformer, "double_blocks.0.img_attn.qkv.weight", xavier(width, 3 * width));
  expect_deviation(Component::transformer, "single_blocks.0.linear2.weight", xavier(5 * width, width));
  expect_deviation(Component::transformer, "time_in.in_layer.weight", xavier(256, width));
  expect_deviation(Component::clip, "text_model.embeddings.token_embedding.weight", 0.02);
  expect_deviation(Component::t5, "shared.weight", 1);
  expect_deviation(Component::t5, "encoder.block.0.layer.0.SelfAttention.k.weight", xavier(128, 6 * 24));
  expect_deviation(Component::t5, "encoder.block.1.layer.0.SelfAttention.q.weight",
                   xavier(128, 6 * 24) / std::sqrt(24));
  // torch.nn.Conv2d: uniform within 1/√(in · 9).
  expect_deviation(Component::vae, "decoder.mid.block_1.conv1.weight", 1 / std::sqrt(3 * 32 * 9));
  for (const auto& [name, source] : made.part(Component::transformer).tensors) {
    const at::Tensor value = at(Component::transformer, name.c_str());
    const bool modulation = name.find("mod.lin") != std::string::npos || name.find("modulation") != std::string::npos;
    const bool zero = modulation || name.starts_with("final_layer.") || name.ends_with(".bias");
    EXPECT_EQ(value.eq(0).all().item<bool>(), zero) << name;
    EXPECT_EQ(value.eq(1).all().item<bool>(), name.ends_with(".scale")) << name;
  }
}

// Queries and keys are what they are for scores of about one: softmax must not begin saturated.
TEST(InitialWeights, T5ScoresBeginAtAboutOne) {
  const test::TemporaryFolder folder;
  const fs::path model = bare("m4_dev", folder / "bare");
  for (const auto& [key, value] : std::map<std::string, json>{{"d_model", 128}, {"d_kv", 64}, {"num_heads", 2}})
    configure(model, "text_encoder_2", key, value);
  configure(model, "transformer", "joint_attention_dim", 128);
  const auto made = pipeline::open_partial_bundle({.model = with_initial_weights(model, folder / "made", 3)});
  const std::string layer = "encoder.block.0.layer.0.SelfAttention.";
  const at::Tensor x = at::randn({200, 128}, at::detail::createCPUGenerator(5));
  const auto head = [&](const char* name) {
    return at::linear(x, values(made, Component::t5, layer + name + ".weight")).narrow(1, 0, 64);
  };
  EXPECT_NEAR(deviation(at::mm(head("q"), head("k").t())), 1, 0.15);
}

struct Hostile {
  std::string part, key;
  json value;
  base::ErrorKind kind = base::ErrorKind::corrupt_file;
};

// Each must end in one sentence that names the file, and neither take memory nor time nor leave anything behind.
TEST(InitialWeights, HostileConfigurationsAreRefused) {
  using base::ErrorKind;
  const Hostile cases[] = {
      {"transformer", "num_layers", {}},
      {"transformer", "num_layers", -1},
      {"transformer", "num_layers", 1'000'000},
      {"transformer", "num_layers", 3e21},
      {"transformer", "num_attention_heads", "5"},
      {"transformer", "num_attention_heads", 90'000},
      {"transformer", "num_attention_heads", 15'000, ErrorKind::out_of_memory},
      {"transformer", "attention_head_dim", 7},
      {"transformer", "attention_head_dim", uint64_t{1} << 63},
      {"transformer", "in_channels", 18},
      {"transformer", "in_channels", 32},
      {"transformer", "joint_attention_dim", 24},
      {"transformer", "pooled_projection_dim", 24},
      {"transformer", "guidance_embeds", "yes"},
      {"transformer", "axes_dims_rope", {"a", 2, 2}},
      {"transformer", "axes_dims_rope", {2, 2}},
      {"transformer", "axes_dims_rope", {INT64_MAX, INT64_MAX, 8}},
      {"transformer", "axes_dims_rope", {-2, 4, 4}},
      {"vae", "block_out_channels", {}},
      {"vae", "block_out_channels", json::array()},
      {"vae", "block_out_channels", {4, -4}},
      {"vae", "block_out_channels", "many"},
      {"vae", "block_out_channels", {2, 2, 2, 2, 2, 2, 2, 2, 2}},
      {"vae", "block_out_channels", {90'000, 90'000}, ErrorKind::out_of_memory},
      {"vae", "norm_num_groups", 3},
      {"vae", "latent_channels", 0},
      {"vae", "layers_per_block", 900'000},
      {"text_encoder", "hidden_size", 21},
      {"text_encoder", "vocab_size", 0},
      {"text_encoder_2", "d_ff", nullptr},
      {"text_encoder_2", "d_kv", 50'000},
      {"text_encoder_2", "feed_forward_proj", 1},
  };
  for (const Hostile& c : cases) {
    const test::TemporaryFolder folder;
    const fs::path model = bare("m4_dev", folder / "bare");
    configure(model, c.part, c.key, c.value);
    try {
      with_initial_weights(model, folder / "made", 1);
      ADD_FAILURE() << c.part << " " << c.key << " " << c.value << " was taken";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.kind(), c.kind) << error.what();
      EXPECT_NE(std::string(error.what()).find(c.part + "/config.json: "), std::string::npos) << error.what();
    }
    EXPECT_FALSE(fs::exists(folder / "made"));
  }
}

}  // namespace
}  // namespace calotype::train
