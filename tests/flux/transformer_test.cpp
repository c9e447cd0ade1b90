// The transformer against diffusers 0.42 FluxTransformer2DModel (tools/reference/pipelines.py), f32. Sums of 20 to 100
// products in another order differ by about 1e-7 each; a handful of blocks and the sinusoids of times up to 1000 make
// 1e-5.
#include "flux/flux_transformer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/probe.h"
#include "flux/flux_math.h"
#include "pipeline/model_bundle.h"
#include "support/golden.h"

namespace calotype::flux {
namespace {

using test::Golden;
using weights::Component;

pipeline::ModelBundle bundle(const std::string& name) {
  return pipeline::open_bundle({.model = test::golden_path("models/" + name)});
}

struct Call {
  Tensor x_BIC;
  Conditioning cond;
  float sigma;
  LatentSize size;
};

Call recorded_call(const Golden& g) {
  const Tensor noise = g.at("noise");
  return {.x_BIC = g.at("transformer.hidden_states"),
          .cond = {.text_BTE = g.at("transformer.encoder_hidden_states"),
                   .pooled_BP = g.at("transformer.pooled"),
                   .guidance = g.has("transformer.guidance") ? g.at("transformer.guidance")[0].item<double>() : 0},
          .sigma = g.at("transformer.timestep")[0].item<float>(),
          .size = {.channels = noise.size(1), .height = noise.size(2), .width = noise.size(3)}};
}

/// Our probe names in the golden file's words: q of both streams together is stored per stream.
void compare(const Golden& g, std::string_view probe, const Tensor& value, double relative) {
  const std::string name(probe);
  if (g.has(name)) return test::expect_close(value, g.at(name), {.relative = relative}, name);
  if (!name.ends_with(".q")) return;
  const std::string block = name.substr(0, name.size() - 2);
  if (!g.has(block + ".img_attn.q")) return;
  const Tensor want = at::cat({g.at(block + ".txt_attn.q"), g.at(block + ".img_attn.q")}, 2);
  test::expect_close(value, want, {.relative = relative}, name);
}

class Transformer : public testing::TestWithParam<const char*> {};

TEST_P(Transformer, MatchesDiffusersAtEveryProbe) {
  const c10::InferenceMode inference;
  const Golden g(GetParam());
  const auto model_bundle = bundle(GetParam());
  const FluxTransformer model(model_bundle.part(Component::transformer), {.dtype = at::kFloat});
  const Call call = recorded_call(g);
  int probes = 0;
  const base::ProbeScope watch([&](std::string_view name, const Tensor& value) {
    compare(g, name, value, 1e-4);
    ++probes;
  });
  const Tensor out = model.forward(call.x_BIC, call.cond, call.sigma, call.size);
  test::expect_close(out, g.at("out"), {.relative = 1e-4}, "out");
  EXPECT_GE(probes, 8);
}

// In bf16 single roundings (2⁻⁹) are amplified by the blocks, and sums in another order flip some of them; diffusers'
// own bf16 run deviates from f32 by 2 to 50 % (times rounded). Two bf16 runs with the same rounding points agree far
// better.
TEST_P(Transformer, FollowsTheRoundingPointsInBf16) {
  const c10::InferenceMode inference;
  const Golden g(GetParam());
  const auto model_bundle = bundle(GetParam());
  const FluxTransformer model(model_bundle.part(Component::transformer), {.dtype = at::kBFloat16});
  Call call = recorded_call(g);
  call.x_BIC = g.at("transformer.hidden_states.bf16").to(at::kBFloat16);
  call.cond.text_BTE = g.at("t5.out.bf16").to(at::kBFloat16);
  call.cond.pooled_BP = g.at("clip.pooled.bf16").to(at::kBFloat16);
  const Tensor out = model.forward(call.x_BIC, call.cond, call.sigma, call.size);
  EXPECT_LT(test::relative_error(out, g.at("out.bf16")), 0.02)
      << "f32 differs by " << test::relative_error(g.at("out"), g.at("out.bf16"));
}

INSTANTIATE_TEST_SUITE_P(Models, Transformer, testing::Values("m1_dev", "m2_schnell", "m3_schnell", "m4_dev"));

// Values: an independent float64 implementation, architecture notes §8.3.
TEST(FluxMath, TimeEmbeddingHasCosinesFirst) {
  const Tensor e = time_embedding(at::full({1}, 750.0), 256, at::kFloat)[0];
  const std::pair<int, double> want[] = {{0, -.666983},  {1, .879756},   {127, .996754},
                                         {128, .745073}, {129, .475425}, {255, .080508}};
  for (const auto& [index, value] : want) EXPECT_NEAR(e[index].item<double>(), value, 2e-5) << index;
}

TEST(Variant, AxesFollowTheRealModelsProportion) {
  EXPECT_EQ(default_axes(128), (std::vector<int64_t>{16, 56, 56}));
  EXPECT_EQ(default_axes(32), (std::vector<int64_t>{4, 14, 14}));
  EXPECT_EQ(default_axes(14), (std::vector<int64_t>{2, 6, 6}));
  for (int64_t head = 8; head <= 256; head += 2) {
    const auto axes = default_axes(head);
    EXPECT_EQ(axes[0] + axes[1] + axes[2], head);
    for (const int64_t axis : axes) EXPECT_TRUE(axis > 0 && axis % 2 == 0) << head;
  }
}

TEST(FluxTransformer, NamesEveryMissingTensorAtOnce) {
  auto model_bundle = bundle("m1_dev");
  weights::TensorIndex& index = model_bundle.parts.at(Component::transformer);
  index.tensors.erase("double_blocks.1.img_mlp.0.bias");
  index.tensors.erase("txt_in.bias");
  try {
    const FluxTransformer model(index, {.dtype = at::kFloat});
    FAIL() << "an incomplete model was accepted";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.kind(), base::ErrorKind::corrupt_file);
    const std::string text = error.what();
    EXPECT_NE(text.find("double_blocks.1.img_mlp.0.bias"), std::string::npos) << text;
    EXPECT_NE(text.find("txt_in.bias"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace calotype::flux
