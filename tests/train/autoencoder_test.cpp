// The autoencoder's loss and gradients against diffusers' AutoencoderKL, f32 (tools/reference/training.py). The L1
// terms turn their sign where a difference is near zero, so the reference itself is only within 5e-5 of f64, 4e-4 after
// five steps.
#include "train/autoencoder_task.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "support/golden.h"
#include "train/gradients.h"
#include "train/model_files.h"

namespace calotype::train {
namespace {

using test::expect_close;
using weights::Component;

struct TrainedVae {
  pipeline::ModelBundle bundle = pipeline::open_bundle({.model = test::golden_path("models/m2_schnell")});
  std::map<std::string, Tensor> weights;
  vae::Autoencoder vae{
      bundle.part(Component::vae), {.training = true, .trained = &weights}, vae::Autoencoder::Parts::both};
  Parameters parameters;
  TrainedVae() {
    for (const auto& [name, value] : weights) parameters.push_back(trained_weight(name, value));
  }
};

TEST(AutoencoderLoss, MatchesDiffusersOverFiveSteps) {
  const test::Golden g("training/autoencoder_m2_schnell");
  TrainedVae m;
  const auto s = g.settings();
  const auto optimizer = make_optimizer(
      {.beta1 = s["betas"][0], .beta2 = s["betas"][1], .epsilon = s["eps"], .weight_decay = s["weight_decay"]},
      m.parameters);
  for (int64_t i = 0; i < 5; ++i) {
    for (const Parameter& p : m.parameters) p.value.mutable_grad() = Tensor();
    const AutoencoderLoss loss = autoencoder_loss(m.vae, g.at("picture"), g.at("eps")[i]);
    torch::autograd::backward({loss.total()}, {});
    if (i == 0) {
      expect_close(loss.l1, g.at("l1"), {.relative = 1e-5}, "L1");
      expect_close(loss.edges, g.at("edges"), {.relative = 1e-5}, "edges");
      expect_close(loss.kl, g.at("kl"), {.relative = 1e-5}, "KL");
      int compared = 0;
      const weights::KeyContext context{.vae_levels = static_cast<int>(m.vae.config().decoder_channels.size())};
      for (const auto& [name, value] : m.weights) {
        const std::string theirs = "grad.vae." + weights::diffusers_keys(name, context).at(0).name;
        if (!g.has(theirs)) continue;
        expect_close(value.grad(), g.at(theirs).reshape(value.sizes()), {.relative = 5e-4}, theirs);
        ++compared;
      }
      EXPECT_GE(compared, static_cast<int>(m.weights.size()) - 8);
    }
    EXPECT_NEAR(loss.total().item<double>() / g.at("losses")[i].item<double>(), 1, 1e-4) << "step " << i;
    const double norm = clip_gradients(m.parameters, s["clip_norm"]);
    EXPECT_NEAR(norm / g.at("norms")[i].item<double>(), 1, 2e-3) << "step " << i;
    optimizer->step(s["lr"]);
  }
}

TEST(AutoencoderLoss, MatchesDiffusersOnPooledLatents) {
  const test::Golden g("training/autoencoder_m2_schnell");
  TrainedVae m;
  const AutoencoderLoss loss = autoencoder_loss(m.vae, g.at("pooled.picture"), g.at("pooled.eps"), 2);
  expect_close(loss.l1, g.at("pooled.l1"), {.relative = 1e-5}, "L1");
  expect_close(loss.edges, g.at("pooled.edges"), {.relative = 1e-5}, "edges");
  expect_close(loss.kl, g.at("pooled.kl"), {.relative = 1e-5}, "KL");
  torch::autograd::backward({loss.total()}, {});
  EXPECT_NEAR(gradient_norm(m.parameters) / g.at("pooled.norm").item<double>(), 1, 5e-4);
}

}  // namespace
}  // namespace calotype::train
