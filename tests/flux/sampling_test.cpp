// Packing, noise and schedules against PyTorch and diffusers' FlowMatchEulerDiscreteScheduler (tools/reference/).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "flux/latents.h"
#include "flux/sampler.h"
#include "flux/schedule.h"
#include "pipeline/model_bundle.h"
#include "support/golden.h"

namespace calotype::flux {
namespace {

using nlohmann::json;
using test::Golden;

// Architecture notes §1.2: the first token of a [1, 2, 4, 6] tensor filled with 0 … 47.
TEST(Latents, PackTakesPatchesRowByRowChannelsFirst) {
  const Tensor latent = at::arange(48, at::kFloat).view({1, 2, 4, 6});
  const Tensor packed = pack(latent);
  EXPECT_EQ(packed.sizes(), (std::vector<int64_t>{1, 6, 8}));
  const std::vector<float> want = {0, 1, 6, 7, 24, 25, 30, 31};
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(packed[0][0][i].item<float>(), want[static_cast<size_t>(i)]);
  EXPECT_TRUE(unpack(packed, {.channels = 2, .height = 4, .width = 6}).equal(latent));
}

TEST(Latents, PositionsOfTextAreZero) {
  const Tensor p = positions(3, {.channels = 4, .height = 4, .width = 6});
  EXPECT_EQ(p.sizes(), (std::vector<int64_t>{3 + 6, 3}));
  EXPECT_EQ(p.narrow(0, 0, 3).abs().sum().item<double>(), 0);
  EXPECT_TRUE(p[8].equal(at::tensor({0.0, 1.0, 2.0}, at::kDouble)));
}

class PipelineNoise : public testing::TestWithParam<const char*> {};

TEST_P(PipelineNoise, IsPyTorchsForEachPicture) {
  const Golden g(GetParam());
  const Tensor want = g.at("noise");
  const LatentSize size{.channels = want.size(1), .height = want.size(2), .width = want.size(3)};
  const auto seed = g.settings().at("seeds").at(0).get<uint64_t>();
  EXPECT_TRUE(noise(NoiseStream::torch, seed, want.size(0), size).equal(want));
}
INSTANTIATE_TEST_SUITE_P(Models, PipelineNoise, testing::Values("m1_dev", "m2_schnell", "m3_schnell", "m4_dev"));

// torch.randn(4096), read as 16 channels of 16 × 16.
TEST(Noise, TorchStreamForExtremeSeeds) {
  const Golden g("noise");
  for (const uint64_t seed :
       {uint64_t{0}, uint64_t{42}, uint64_t{4294967295}, uint64_t{9007199254740993}, UINT64_MAX}) {
    const Tensor want = g.at(fmt::format("seed_{}.n_4096.f32", seed)).view({1, 16, 16, 16});
    EXPECT_TRUE(noise(NoiseStream::torch, seed, 1, {.channels = 16, .height = 16, .width = 16}).equal(want)) << seed;
  }
}

TEST(Noise, ComfyDrawsTheBatchAtOnce) {
  const Golden g("noise");
  const Tensor want = g.at("seed_42.n_4096.f32").view({2, 8, 16, 16});
  EXPECT_TRUE(noise(NoiseStream::comfy, 42, 2, {.channels = 8, .height = 16, .width = 16}).equal(want));
}

// Values: torch 1.13's bf16 CPU randn, architecture notes §5.4.
TEST(Noise, BflStreamIsTheOldBf16One) {
  const Tensor n = noise(NoiseStream::bfl, 42, 1, {.channels = 16, .height = 8, .width = 8}).flatten();
  const double want[] = {-0.80859375, -1.53125, 0.40625, 0.171875};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(n[i].item<double>(), want[i]);
  EXPECT_LE(n.abs().max().item<double>(), 3.34);
}

TEST(Schedule, MatchesDiffusers) {
  const json cases = json::parse(base::read_file(test::golden_path("schedule.json"), 1 << 20));
  int compared = 0;
  for (const json& one : cases) {
    const ScheduleConfig config{.shifted = one.at("variant") == "dev"};
    const auto sigmas = schedule(config, one.at("steps"), one.at("image_tokens"));
    const auto want = one.at("sigmas").get<std::vector<float>>();
    ASSERT_EQ(sigmas.size(), want.size());
    // diffusers computes in f32, we in f64 rounded once: a few units of the last place near 1.
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(sigmas[i], want[i], 3e-7) << one.dump() << " " << i;
    ++compared;
  }
  EXPECT_GE(compared, 6);
}

class Sampling : public testing::TestWithParam<const char*> {};

TEST_P(Sampling, EveryStepMatchesDiffusers) {
  const Golden g(GetParam());
  const auto& s = g.settings();
  const auto bundle = pipeline::open_bundle({.model = test::golden_path(std::string("models/") + GetParam())});
  const FluxTransformer model(bundle.part(weights::Component::transformer), {.dtype = at::kFloat});
  const Tensor start = g.at("noise"), steps = g.at("latents");
  const LatentSize size{.channels = start.size(1), .height = start.size(2), .width = start.size(3)};
  SampleOptions options{.sigmas = schedule(bundle.schedule, s.at("num_inference_steps"), size.tokens())};
  const double guidance = s.value("guidance_scale", 0.0);
  options.positive = {.text_BTE = g.at("t5.out"), .pooled_BP = g.at("clip.pooled"), .guidance = guidance};
  if (s.contains("true_cfg_scale") && s["true_cfg_scale"].is_number() && s["true_cfg_scale"] > 1.0) {
    options.negative = {
        .text_BTE = g.at("negative.t5.out"), .pooled_BP = g.at("negative.clip.pooled"), .guidance = guidance};
    options.true_cfg = s["true_cfg_scale"];
  }
  options.on_step = [&](const StepReport& step) {
    test::expect_close(step.latents_BLC, steps[step.step - 1], {.relative = 1e-4}, fmt::format("step {}", step.step));
  };
  sample(model, pack(start), size, options);
}
INSTANTIATE_TEST_SUITE_P(Models, Sampling, testing::Values("m1_dev", "m2_schnell", "m3_schnell", "m4_dev"));

TEST(Sampling, NotFiniteNumbersNameStepAndBlock) {
  auto bundle = pipeline::open_bundle({.model = test::golden_path("models/m2_schnell")});
  // One infinite bias in the third single block, in a private copy of that tensor.
  weights::Source& source = bundle.parts.at(weights::Component::transformer).tensors.at("single_blocks.2.linear2.bias");
  std::vector<float> poisoned(static_cast<size_t>(source.parts[0].tensor.elements()), INFINITY);
  source.parts[0].tensor.bytes = std::as_bytes(std::span(poisoned));
  source.parts[0].tensor.type = files::TensorType::f32;
  const FluxTransformer model(bundle.part(weights::Component::transformer), {.dtype = at::kFloat});
  const Golden g("m2_schnell");
  const Tensor start = g.at("noise");
  const LatentSize size{.channels = start.size(1), .height = start.size(2), .width = start.size(3)};
  try {
    sample(model, pack(start), size,
           {.sigmas = {1.0f, 0.5f, 0.0f}, .positive = {.text_BTE = g.at("t5.out"), .pooled_BP = g.at("clip.pooled")}});
    FAIL() << "infinity went through";
  } catch (const base::Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("step 1 of 2"), std::string::npos) << text;
    EXPECT_NE(text.find("single_blocks.2"), std::string::npos) << text;
  }
}

TEST(Sampling, CancelStopsBeforeTheNextStep) {
  const auto bundle = pipeline::open_bundle({.model = test::golden_path("models/m2_schnell")});
  const FluxTransformer model(bundle.part(weights::Component::transformer), {.dtype = at::kFloat});
  const Golden g("m2_schnell");
  const Tensor start = g.at("noise");
  base::CancelToken cancel;
  int steps = 0;
  SampleOptions options{.sigmas = {1.0f, 0.7f, 0.3f, 0.0f},
                        .positive = {.text_BTE = g.at("t5.out"), .pooled_BP = g.at("clip.pooled")}};
  options.cancel = &cancel;
  options.on_step = [&](const StepReport&) {
    ++steps;
    cancel.request();
  };
  EXPECT_THROW(
      sample(model, pack(start), {.channels = start.size(1), .height = start.size(2), .width = start.size(3)}, options),
      base::Error);
  EXPECT_EQ(steps, 1);
}

}  // namespace
}  // namespace calotype::flux
