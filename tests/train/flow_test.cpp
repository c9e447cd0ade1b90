// Losses, gradients and optimiser steps of flow matching against diffusers 0.42 + peft 0.21 in f32 on one thread
// (tools/reference/training.py). Those numbers are within 5e-6 of their f64 values; ours sum in another order, which a
// few blocks and ten steps multiply: 1e-4 leaves room for other processors.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "adapters/lora_apply.h"
#include "pipeline/model_bundle.h"
#include "pipeline/prompt_encoder.h"
#include "support/golden.h"
#include "train/flow_loss.h"
#include "train/gradients.h"
#include "train/model_files.h"

namespace calotype::train {
namespace {

using test::expect_close;
using test::Golden;
using weights::Component;

constexpr test::Tolerance kClose{.relative = 1e-4};

pipeline::ModelBundle bundle(const std::string& name) {
  return pipeline::open_bundle({.model = test::golden_path("models/" + name)});
}

flux::LatentSize size_of(const Tensor& latents) {
  return {.channels = latents.size(-3), .height = latents.size(-2), .width = latents.size(-1)};
}

/// What diffusers + peft were given for one step.
struct Inputs {
  const Golden& g;
  Noised noised(int64_t step) const { return add_noise(g.at("x0"), g.at("noise")[step], g.at("t")[step]); }
  flux::Conditioning cond() const { return {.text_BTE = g.at("text"), .pooled_BP = g.at("pooled"), .guidance = 1.0}; }
  flux::LatentSize size() const { return size_of(g.at("x0")); }
};

std::unique_ptr<Optimizer> adamw(const nlohmann::json& settings, const Parameters& parameters) {
  return make_optimizer({.kind = OptimizerKind::adamw,
                         .beta1 = settings["betas"][0],
                         .beta2 = settings["betas"][1],
                         .epsilon = settings["eps"],
                         .weight_decay = settings["weight_decay"]},
                        parameters);
}

void clear(const Parameters& parameters) {
  for (const Parameter& p : parameters) p.value.mutable_grad() = Tensor();
}

struct Step {
  double loss, norm;
};
/// One optimiser step on `loss`, as the reference takes it.
Step step(const Tensor& loss, const Parameters& parameters, Optimizer& optimizer, const nlohmann::json& settings) {
  clear(parameters);
  torch::autograd::backward({loss}, {});
  const double norm = clip_gradients(parameters, settings["clip_norm"]);
  optimizer.step(settings["lr"]);
  return {loss.item<double>(), norm};
}

/// A tiny model with the reference's initial adapters.
struct AdaptedModel {
  Golden g;
  pipeline::ModelBundle model_bundle;
  flux::FluxTransformer model;
  std::vector<adapters::AdapterPair> pairs;
  Parameters parameters;

  AdaptedModel(const std::string& name, bool recompute)
      : g("training/lora_" + name),
        model_bundle(bundle(name)),
        model(model_bundle.part(Component::transformer), {.training = true, .recompute = recompute}) {
    TrainOptions options{.rank = g.settings()["rank"], .alpha = g.settings()["alpha"].get<double>()};
    pairs = new_adapters(model.adapter_slots(), options, at::kCPU);
    adapters::attach({.pairs = pairs, .stored = static_cast<int>(pairs.size()), .where = "test"}, 1.0,
                     model.adapter_slots(), at::kCPU);
    const at::NoGradGuard no_grad;
    for (const adapters::AdapterPair& pair : pairs) {
      pair.down_RI.copy_(g.at("init." + pair.stored_name + ".lora_A.weight"));
      pair.up_OR.copy_(g.at("init." + pair.stored_name + ".lora_B.weight"));
      parameters.push_back({.name = pair.stored_name + ".lora_A.weight", .value = pair.down_RI});
      parameters.push_back({.name = pair.stored_name + ".lora_B.weight", .value = pair.up_OR});
    }
  }

  Tensor predict(const Noised& noised, const flux::Conditioning& cond) const {
    return model.forward(noised.x_BIC, cond, noised.sigma_B, Inputs{g}.size());
  }
  Tensor loss(int64_t at_step) const {
    const Noised noised = Inputs{g}.noised(at_step);
    return flow_loss(predict(noised, Inputs{g}.cond()), noised);
  }
};

struct Case {
  const char* model;
  bool recompute;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.model << (c.recompute ? " recomputed" : ""); }
class LoraStep : public testing::TestWithParam<Case> {};

TEST_P(LoraStep, LossAndGradientsOfEveryAdapter) {
  AdaptedModel m(GetParam().model, GetParam().recompute);
  EXPECT_EQ(m.parameters.size(), std::string(GetParam().model) == "m1_dev" ? 2 * (2 * 14 + 3 * 6) : 2 * (14 + 4 * 6));
  const Noised noised = Inputs{m.g}.noised(0);
  expect_close(noised.x_BIC, m.g.at("noisy"), kClose, "noisy");
  expect_close(noised.velocity_BIC, m.g.at("velocity"), kClose, "velocity");
  expect_close(m.predict(noised, Inputs{m.g}.cond()), m.g.at("prediction"), kClose, "prediction");
  const Tensor loss = m.loss(0);
  expect_close(loss, m.g.at("loss"), kClose, "loss");
  torch::autograd::backward({loss}, {});
  for (const Parameter& p : m.parameters) expect_close(p.value.grad(), m.g.at("grad." + p.name), kClose, p.name);
  EXPECT_NEAR(gradient_norm(m.parameters) / m.g.at("norm").item<double>(), 1, 1e-4);
}

TEST_P(LoraStep, TenStepsOfAdamW) {
  AdaptedModel m(GetParam().model, GetParam().recompute);
  const auto optimizer = adamw(m.g.settings(), m.parameters);
  for (int64_t i = 0; i < 10; ++i) {
    const Step done = step(m.loss(i), m.parameters, *optimizer, m.g.settings());
    EXPECT_NEAR(done.loss / m.g.at("losses")[i].item<double>(), 1, 1e-4) << "step " << i;
    EXPECT_NEAR(done.norm / m.g.at("norms")[i].item<double>(), 1, 1e-4) << "step " << i;
  }
  for (const Parameter& p : m.parameters) expect_close(p.value, m.g.at("final." + p.name), kClose, p.name);
}

INSTANTIATE_TEST_SUITE_P(Models, LoraStep,
                         testing::Values(Case{"m1_dev", false}, Case{"m1_dev", true}, Case{"m2_schnell", false},
                                         Case{"m2_schnell", true}),
                         [](const auto& info) {
                           return std::string(info.param.model) + (info.param.recompute ? "_recomputed" : "");
                         });

class LoraVariant : public testing::TestWithParam<const char*> {
 protected:
  LoraVariant() : m(GetParam(), false), v(std::string("training/lora_") + GetParam() + "_variants") {}
  /// Gradients that the reference recorded under "prefix.grad.".
  void expect_gradients(const std::string& prefix) const {
    int compared = 0;
    for (const Parameter& p : m.parameters) {
      if (!v.has(prefix + ".grad." + p.name)) continue;
      expect_close(p.value.grad(), v.at(prefix + ".grad." + p.name), kClose, prefix + " " + p.name);
      ++compared;
    }
    EXPECT_EQ(compared, 10) << prefix;
  }
  AdaptedModel m;
  Golden v;
};

TEST_P(LoraVariant, AccumulatedBatchesAreAveraged) {
  const auto optimizer = adamw(m.g.settings(), m.parameters);
  for (const int64_t i : {0, 1}) torch::autograd::backward({m.loss(i) / 2}, {});
  const double norm = clip_gradients(m.parameters, m.g.settings()["clip_norm"]);
  optimizer->step(m.g.settings()["lr"]);
  EXPECT_NEAR(norm / v.at("accumulated.norm").item<double>(), 1, 1e-4);
  for (const Parameter& p : m.parameters) expect_close(p.value, v.at("accumulated." + p.name), kClose, p.name);
}

TEST_P(LoraVariant, MaskedLoss) {
  const Noised noised = Inputs{m.g}.noised(0);
  const Tensor loss = flow_loss(m.predict(noised, Inputs{m.g}.cond()), noised, v.at("masked.mask"));
  expect_close(loss, v.at("masked.loss"), kClose, "loss");
  torch::autograd::backward({loss}, {});
  expect_gradients("masked");
}

TEST_P(LoraVariant, PreservationOfAClass) {
  const flux::Conditioning cond{.text_BTE = v.at("dop.text"), .pooled_BP = v.at("dop.pooled"), .guidance = 1.0};
  Noised wanted = Inputs{m.g}.noised(0);
  {
    const at::NoGradGuard no_grad;
    const adapters::WithoutAdapters off(m.model.adapter_slots());
    wanted.velocity_BIC = m.predict(wanted, cond);
  }
  expect_close(wanted.velocity_BIC, v.at("dop.wanted"), kClose, "what the base says");
  const Tensor loss = flow_loss(m.predict(wanted, cond), wanted);
  expect_close(loss, v.at("dop.loss"), kClose, "loss");
  torch::autograd::backward({loss}, {});
  expect_gradients("dop");
}

TEST(Distillation, FollowsTheGuidedBase) {
  AdaptedModel m("m1_dev", false);
  const Golden v("training/lora_m1_dev_variants");
  const flux::Conditioning empty{
      .text_BTE = v.at("distilled.text"), .pooled_BP = v.at("distilled.pooled"), .guidance = 1.0};
  Noised wanted = Inputs{m.g}.noised(0);
  {
    const at::NoGradGuard no_grad;
    const adapters::WithoutAdapters off(m.model.adapter_slots());
    wanted.velocity_BIC = guided(m.predict(wanted, Inputs{m.g}.cond()), m.predict(wanted, empty), 3);
  }
  expect_close(wanted.velocity_BIC, v.at("distilled.wanted"), kClose, "what guidance gives");
  flux::Conditioning told = Inputs{m.g}.cond();
  told.guidance = 3;
  const Tensor loss = flow_loss(m.predict(wanted, told), wanted);
  expect_close(loss, v.at("distilled.loss"), kClose, "loss");
  torch::autograd::backward({loss}, {});
  int compared = 0;
  for (const Parameter& p : m.parameters) {
    if (!v.has("distilled.grad." + p.name)) continue;
    expect_close(p.value.grad(), v.at("distilled.grad." + p.name), kClose, p.name);
    ++compared;
  }
  EXPECT_EQ(compared, 10);
}

INSTANTIATE_TEST_SUITE_P(Models, LoraVariant, testing::Values("m1_dev", "m2_schnell"));

/// Our tensors' gradients under diffusers' names and rows.
std::map<std::string, Tensor> diffusers_gradients(const std::map<std::string, Tensor>& weights) {
  std::map<std::string, Tensor> out;
  for (const auto& [name, value] : weights) {
    if (!value.grad().defined()) continue;
    for (const weights::DiffusersKey& key : weights::diffusers_keys(name, {})) {
      Tensor gradient = value.grad();
      if (key.parts > 1) {
        const int64_t columns = weights.at(name.substr(0, name.rfind('.')) + ".weight").size(1);
        const adapters::Rows rows = adapters::rows_of(key.part, key.parts, {.in = columns, .out = value.size(0)});
        gradient = gradient.narrow(0, rows.first, rows.count);
      }
      if (key.swapped) gradient = at::cat({gradient.chunk(2)[1], gradient.chunk(2)[0]});
      out[key.name] = gradient;
    }
  }
  return out;
}

class FullStep : public testing::TestWithParam<const char*> {};

TEST_P(FullStep, LossGradientsAndTenSteps) {
  const Golden inputs(std::string("training/lora_") + GetParam()), g(std::string("training/full_") + GetParam());
  const auto model_bundle = bundle(GetParam());
  std::map<std::string, Tensor> trained;
  const flux::FluxTransformer model(model_bundle.part(Component::transformer), {.training = true, .trained = &trained});
  Parameters parameters;
  for (const auto& [name, value] : trained) parameters.push_back(trained_weight(name, value));
  const auto optimizer = adamw(g.settings(), parameters);
  const auto loss_at = [&](int64_t i) {
    const Noised noised = Inputs{inputs}.noised(i);
    return flow_loss(model.forward(noised.x_BIC, Inputs{inputs}.cond(), noised.sigma_B, Inputs{inputs}.size()), noised);
  };
  torch::autograd::backward({loss_at(0)}, {});
  int compared = 0;
  for (const auto& [name, gradient] : diffusers_gradients(trained)) {
    if (!g.has("grad.transformer." + name)) continue;
    expect_close(gradient, g.at("grad.transformer." + name), kClose, name);
    ++compared;
  }
  EXPECT_GE(compared, 50);
  for (int64_t i = 0; i < 10; ++i) {
    const Step done = step(loss_at(i), parameters, *optimizer, g.settings());
    EXPECT_NEAR(done.loss / g.at("losses")[i].item<double>(), 1, 1e-4) << "step " << i;
    EXPECT_NEAR(done.norm / g.at("norms")[i].item<double>(), 1, 1e-3) << "step " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, FullStep, testing::Values("m1_dev", "m2_schnell"));

class JointStep : public testing::TestWithParam<const char*> {};

// Text encoders learn through the transformer.
TEST_P(JointStep, LossAndGradientsOfTextEncoders) {
  const Golden inputs(std::string("training/lora_") + GetParam()), g(std::string("training/joint_") + GetParam());
  const auto model_bundle = bundle(GetParam());
  std::map<std::string, Tensor> trained, encoders;
  const flux::FluxTransformer model(model_bundle.part(Component::transformer), {.training = true, .trained = &trained});
  const text::ClipEncoder clip(model_bundle.part(Component::clip), {.training = true, .trained = &encoders});
  const text::T5Encoder t5(model_bundle.part(Component::t5), {.training = true, .trained = &encoders});
  const flux::Conditioning cond{
      .text_BTE = t5.encode(g.at("t5.ids")), .pooled_BP = clip.encode(g.at("clip.ids")).pooled_BD, .guidance = 1.0};
  const Noised noised = Inputs{inputs}.noised(0);
  const Tensor loss = flow_loss(model.forward(noised.x_BIC, cond, noised.sigma_B, Inputs{inputs}.size()), noised);
  expect_close(loss, g.at("loss"), kClose, "loss");
  torch::autograd::backward({loss}, {});
  int compared = 0;
  for (const auto& [name, value] : encoders) {
    const std::string key = (name.starts_with("text_model.") ? "grad.clip." : "grad.t5.") + name;
    if (!g.has(key)) continue;
    expect_close(value.grad(), g.at(key), kClose, name);
    ++compared;
  }
  EXPECT_GE(compared, 20);
}

INSTANTIATE_TEST_SUITE_P(Models, JointStep, testing::Values("m1_dev", "m2_schnell"));

TEST(Timesteps, AutoFollowsTheModelsSchedule) {
  EXPECT_EQ(timesteps_from_name("auto", {}), Timesteps::sigmoid);                   // FLUX.1 [dev]
  EXPECT_EQ(timesteps_from_name("auto", {.shifted = false}), Timesteps::sigmoid);   // [schnell]
  EXPECT_EQ(timesteps_from_name("auto", {.base_shift = 1, .max_shift = 1}), Timesteps::flux_shift);
  EXPECT_EQ(timesteps_from_name("uniform", {}), Timesteps::uniform);
  EXPECT_EQ(timesteps_from_name("sometimes", {}), std::nullopt);
}

TEST(Timesteps, FollowTheirDistributions) {
  at::Generator random = generator(3, Stream::step, 0);
  const auto mean = [](const Tensor& t) { return t.mean().item<double>(); };
  const Tensor uniform = draw_sigmas(Timesteps::uniform, 20000, 1024, {}, random);
  EXPECT_NEAR(mean(uniform), 0.5, 0.01);
  EXPECT_NEAR(mean((uniform < 0.25).to(at::kFloat)), 0.25, 0.015);
  // P(sigmoid(z) < 0.25) = Φ(log(1/3)) = Φ(−1.0986) = 0.136.
  const Tensor sigmoid = draw_sigmas(Timesteps::sigmoid, 20000, 1024, {}, random);
  EXPECT_NEAR(mean((sigmoid < 0.25).to(at::kFloat)), 0.136, 0.01);
  // At 1024 tokens s = e^0.63 = 1.878 (black-forest-labs/flux sampling.py): the median moves from 0.5 to s/(s + 1).
  const Tensor shifted = draw_sigmas(Timesteps::flux_shift, 20000, 1024, {}, random);
  EXPECT_NEAR(mean((shifted < 1.878 / 2.878).to(at::kFloat)), 0.5, 0.015);
}

}  // namespace
}  // namespace calotype::train
