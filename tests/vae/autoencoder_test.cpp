// The autoencoder against diffusers 0.42 AutoencoderKL (tools/reference/pipelines.py), f32. Convolutions sum up to 300
// products in another order; normalisation keeps the error at 1e-6 or so, 1e-4 leaves room for other processors.
#include "vae/autoencoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "pipeline/model_bundle.h"
#include "support/golden.h"

namespace calotype::vae {
namespace {

using test::Golden;
using weights::Component;

Autoencoder load(const std::string& model, at::ScalarType dtype = at::kFloat) {
  const auto bundle = pipeline::open_bundle({.model = test::golden_path("models/" + model)});
  return Autoencoder(bundle.part(Component::vae), {.dtype = dtype}, Autoencoder::Parts::both);
}

class Vae : public testing::TestWithParam<const char*> {
 protected:
  Golden g{GetParam()};
  c10::InferenceMode inference;
};

/// Golden inputs of decode() are already unscaled, as diffusers passes them.
Tensor scaled_input(const Autoencoder& vae, const Golden& g) { return vae.scaled(g.at("vae.decode.input")); }

TEST_P(Vae, DecodeMatchesDiffusers) {
  const Autoencoder vae = load(GetParam());
  test::expect_close(vae.decode(scaled_input(vae, g)), g.at("vae.decode.output"), {.relative = 1e-4});
}

TEST_P(Vae, EncodeMatchesDiffusers) {
  const Autoencoder vae = load(GetParam());
  const Posterior posterior = vae.encode(g.at("vae.encode.input"));
  test::expect_close(posterior.mean_BChw, g.at("vae.encode.mean"), {.relative = 1e-4}, "mean");
  test::expect_close(posterior.logvar_BChw, g.at("vae.encode.logvar"), {.relative = 1e-4}, "log-variance");
}

// bf16 keeps 8 bits: 0.4 % a rounding over some ten convolutions; both runs round at the same places.
TEST_P(Vae, DecodeInBf16StaysNear) {
  const Autoencoder vae = load(GetParam(), at::kBFloat16);
  const Tensor picture = vae.decode(scaled_input(vae, g).to(at::kBFloat16));
  EXPECT_LT(test::relative_error(picture, g.at("vae.decode.output")), 0.04);
}

INSTANTIATE_TEST_SUITE_P(Models, Vae, testing::Values("m1_dev", "m2_schnell", "m3_schnell", "m4_dev"));

// Norms learn the whole picture's statistics over the passes; the rest is exact within the halo. The bound is the
// project's promise. Random weights and groups of one or two channels are the hardest case: nothing averages out.
class VaeTiling : public testing::TestWithParam<const char*> {};

TEST_P(VaeTiling, AgreesWithTheWholePicture) {
  const c10::InferenceMode inference;
  const Autoencoder vae = load(GetParam());
  at::manual_seed(5);
  const Tensor coarse = at::randn({1, vae.config().latent_channels, 3, 4});
  const Tensor latents =
      at::upsample_bilinear2d(coarse, {40, 52}, false) + 0.3 * at::randn({1, vae.config().latent_channels, 40, 52});
  const Tensor whole = vae.decode(latents) * 0.5 + 0.5;
  const Tensor tiled = vae.decode_tiled(latents, {.tile = 48, .halo = 14}) * 0.5 + 0.5;
  ASSERT_EQ(whole.sizes(), tiled.sizes());
  EXPECT_GE(test::psnr(tiled.clamp(0, 1), whole.clamp(0, 1)), 40.0);
  EXPECT_GT((tiled - whole).abs().max().item<double>(), 0) << "the tiled path did not run";
}
INSTANTIATE_TEST_SUITE_P(Models, VaeTiling, testing::Values("m1_dev", "m2_schnell", "m3_schnell", "m4_dev"));

TEST(VaeTile, OneTileIsTheWholePicture) {
  const c10::InferenceMode inference;
  const Autoencoder vae = load("m2_schnell");
  const Tensor latents = at::randn({1, 4, 12, 10});
  test::expect_close(vae.decode_tiled(latents, {}), vae.decode(latents), {.relative = 1e-5});
}

TEST(VaeTile, OddSizesAreCovered) {
  const c10::InferenceMode inference;
  const Autoencoder vae = load("m2_schnell");
  for (const auto& [h, w] : {std::pair{17, 33}, std::pair{31, 8}, std::pair{16, 49}}) {
    const Tensor latents = at::randn({2, 4, h, w});
    const Tensor tiled = vae.decode_tiled(latents, {.tile = 16, .halo = 4});
    EXPECT_EQ(tiled.sizes(), (std::vector<int64_t>{2, 3, h * 4, w * 4}));
    EXPECT_TRUE(tiled.isfinite().all().item<bool>());
  }
}

}  // namespace
}  // namespace calotype::vae
