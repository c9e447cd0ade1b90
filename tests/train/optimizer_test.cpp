#include "train/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/golden.h"
#include "train/adamw_8bit.h"
#include "train/gradients.h"
#include "train/muon.h"

// Values: torch.optim, prodigyopt and bitsandbytes by tools/reference/optimizers.py.
namespace calotype::train {
namespace {

const test::Golden& golden() {
  static const test::Golden g("optimizers");
  return g;
}

/// The reference's gradient: one f32 addition a number.
at::Tensor gradient(const std::string& name, int64_t step) {
  return golden().at("pull." + name) + at::roll(golden().at("noise." + name), 13 * step);
}

OptimizerOptions options_of(const nlohmann::json& settings) {
  OptimizerOptions o{.kind = *optimizer_from_name(settings.at("kind").get<std::string>()),
                     .beta1 = settings.at("beta1"),
                     .beta2 = settings.at("beta2"),
                     .epsilon = settings.at("epsilon"),
                     .weight_decay = settings.at("weight_decay"),
                     .muon_rate = settings.value("muon_rate", 1.0),
                     .muon_type = at::kFloat};
  o.prodigy_bias_correction = settings.value("prodigy_bias_correction", false);
  o.prodigy_safeguard_warmup = settings.value("prodigy_safeguard_warmup", false);
  o.prodigy_d0 = settings.value("prodigy_d0", o.prodigy_d0);
  o.prodigy_d_factor = settings.value("prodigy_d_factor", o.prodigy_d_factor);
  o.prodigy_growth_rate = settings.value("prodigy_growth_rate", o.prodigy_growth_rate);
  return o;
}

/// One case of the reference: its tensors, options and steps.
struct Case {
  explicit Case(const std::string& name) : settings(golden().settings().at(name)), options(options_of(settings)) {
    for (const std::string tensor : settings.at("tensors")) {
      const at::Tensor start = golden().at("start." + tensor).requires_grad_();
      parameters.push_back({.name = tensor,
                            .value = start,
                            .matrix = start.dim() >= 2,
                            .row_parts = settings.value("row_parts", std::vector<int64_t>{})});
    }
  }

  void steps(Optimizer& optimizer, int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      for (Parameter& p : parameters) {
        const bool absent = std::ranges::count(settings.at("absent"), nlohmann::json{s, p.name}) > 0;
        p.value.mutable_grad() = absent ? at::Tensor() : gradient(p.name, s);
      }
      optimizer.step(settings.at("learning_rates").at(static_cast<size_t>(s)));
    }
  }

  nlohmann::json settings;
  OptimizerOptions options;
  Parameters parameters;
};

/// ‖got − want‖ relative to the way that the reference went from its start.
double distance(const std::string& tensor, const at::Tensor& got, const std::string& want) {
  const at::Tensor end = golden().at(want);
  return ((got.detach() - end).norm() / (end - golden().at("start." + tensor)).norm()).item<double>();
}

void expect_reference(const std::string& name, double tolerance, OptimizerOptions options) {
  Case run(name);
  const auto optimizer = make_optimizer(options, run.parameters);
  const auto compare = [&](const std::string& prefix) {
    for (const Parameter& p : run.parameters)
      EXPECT_LE(distance(p.name, p.value, prefix + p.name), tolerance) << prefix << p.name;
  };
  run.steps(*optimizer, 0, 3);
  compare(name + ".3.");
  run.steps(*optimizer, 3, 20);
  compare(name + ".");
}

void expect_reference(const std::string& name, double tolerance) {
  expect_reference(name, tolerance, Case(name).options);
}

// The same f32 arithmetic, grouped differently: a few 1e-7 of each value, while the way is a few per cent of it.
constexpr double kSameArithmetic = 1e-5;

TEST(AdamW, MatchesTorch) { expect_reference("adamw", kSameArithmetic); }

TEST(Prodigy, MatchesProdigyopt) {
  expect_reference("prodigy", kSameArithmetic);
  expect_reference("prodigy_options", kSameArithmetic);
}

TEST(Prodigy, FindsTheSameRate) {
  Case run("prodigy");
  const auto optimizer = make_optimizer(run.options, run.parameters);
  run.steps(*optimizer, 0, 20);
  const double want = run.settings.at("d");
  ASSERT_GT(want, 10 * run.options.prodigy_d0) << "the reference never left its first guess";
  EXPECT_NEAR(optimizer->state().at("d").item<double>(), want, 1e-5 * want);
}

// Five Newton–Schulz steps amplify rounding by up to 3.4445⁵ ≈ 500 where singular values are small.
TEST(Muon, MatchesTorchInF32) {
  expect_reference("muon_f32", 5e-5);
  expect_reference("muon_parts", 5e-5);
}

// bf16 rounds to 2^-9; the reference in bf16 is 0.35 % from that in f32. Other orders of summation give other
// roundings.
TEST(Muon, MatchesTorchInBf16) {
  OptimizerOptions options = Case("muon_bf16").options;
  options.muon_type = at::kBFloat16;
  expect_reference("muon_bf16", 0.01, options);
}

// What the method is for: every singular value of the update is about one, whatever those of the gradient were.
TEST(Muon, OrthogonalizesWideTallAndZeroMatrices) {
  at::manual_seed(1);
  for (const auto& [rows, columns] : {std::pair{48, 16}, {16, 48}, {32, 32}}) {
    const at::Tensor stretched = at::randn({rows, columns}) * at::logspace(-2, 0, columns);
    const at::Tensor singular = at::linalg_svdvals(orthogonalize(stretched, at::kFloat));
    EXPECT_LT(singular.max().item<double>(), 1.3) << rows;
    EXPECT_GT(singular.median().item<double>(), 0.6) << rows;
  }
  EXPECT_EQ(orthogonalize(at::zeros({4, 4}), at::kFloat).abs().max().item<double>(), 0);
}

TEST(AdamW8bit, TablesAreThoseOfBitsandbytes) {
  for (const auto& [code, name] : {std::pair{dynamic_code(true), "exp_avg"}, {dynamic_code(false), "exp_avg_sq"}}) {
    const at::Tensor want = golden().at(std::string("adamw8bit.table.") + name);
    // Theirs are products of f32 numbers, ours of f64 ones, rounded: a few units in the last place.
    EXPECT_TRUE(at::allclose(at::tensor(code), want, 4e-7, 0)) << name;
  }
}

TEST(AdamW8bit, CodesAreThoseOfBucketize) {
  at::manual_seed(1);
  const at::Tensor table = at::tensor(dynamic_code(true));
  const at::Tensor borders = (table.slice(0, 1) + table.slice(0, 0, -1)).div(2);
  const at::Tensor values = at::cat({at::randn({40'000}) * at::logspace(-8, 0, 40'000), table, borders, -borders,
                                     at::tensor({0.0F, -0.0F, 1.0F, -1.0F, 2.0F, -2.0F, 1e-30F, -1e-30F})});
  const at::Tensor codes = at::empty({values.numel()}, at::kByte);
  nearest_codes(values, borders, codes);
  EXPECT_TRUE(at::equal(codes.to(at::kLong), at::bucketize(values, borders)));
}

// A moment within rounding of the border between two codes may get the other one, which moves the number's next updates
// by up to a few per cent; that happens to about one number in 10⁴ a step.
TEST(AdamW8bit, MatchesBitsandbytes) {
  expect_reference("adamw8bit", 1e-3);

  Case run("adamw8bit");
  const auto optimizer = make_optimizer(run.options, run.parameters);
  run.steps(*optimizer, 0, 20);
  const OptimizerState state = optimizer->state();
  EXPECT_FALSE(state.contains("matrix.exp_avg.scale")) << "tensors below 4096 numbers keep f32 moments";
  for (const std::string moment : {"large.exp_avg", "large.exp_avg_sq"}) {
    const at::Tensor want = golden().at("adamw8bit." + moment).flatten();
    const at::Tensor got = state.at(moment).flatten().slice(0, 0, want.numel()).to(at::kLong);
    EXPECT_LE((got != want).sum().item<int64_t>(), want.numel() / 200) << moment;
    EXPECT_LE((got - want).abs().max().item<int64_t>(), 1) << moment;
    test::expect_close(state.at(moment + ".scale"), golden().at("adamw8bit." + moment + ".scale"), {.relative = 1e-5});
  }
}

// The reference's own distance between 8 and 32 bits is 1.9 % of the way; codes are 2 to 6 % apart, errors partly
// cancel.
TEST(AdamW8bit, StaysCloseTo32Bits) {
  Case run("adamw8bit");
  const auto optimizer = make_optimizer(run.options, run.parameters);
  run.steps(*optimizer, 0, 20);
  const double way = distance("large", run.parameters.back().value, "adamw32bit.large");
  EXPECT_LE(way, 0.03);
  EXPECT_GE(way, 1e-4) << "the state is not 8-bit";
}

TEST(Optimizer, ResumesBitForBit) {
  for (const std::string name : {"adamw", "adamw8bit", "prodigy", "muon_f32"}) {
    Case whole(name), first(name), second(name);
    const auto all = make_optimizer(whole.options, whole.parameters);
    whole.steps(*all, 0, 20);

    const auto before = make_optimizer(first.options, first.parameters);
    first.steps(*before, 0, 10);
    OptimizerState saved;
    for (const auto& [key, tensor] : before->state()) saved[key] = tensor.clone();
    for (size_t i = 0; i < first.parameters.size(); ++i)
      second.parameters[i].value = first.parameters[i].value.detach().clone().requires_grad_();
    first.steps(*before, 10, 11);  // what was saved must not move along

    const auto after = make_optimizer(second.options, second.parameters);
    after->load(saved);
    second.steps(*after, 10, 20);
    for (size_t i = 0; i < whole.parameters.size(); ++i)
      EXPECT_TRUE(at::equal(whole.parameters[i].value, second.parameters[i].value))
          << name << " " << whole.parameters[i].name;
    for (const auto& [key, tensor] : all->state())
      EXPECT_TRUE(at::equal(tensor, after->state().at(key))) << name << " " << key;
  }
}

TEST(Optimizer, RefusesStateOfAnotherRun) {
  Case run("adamw");
  const auto optimizer = make_optimizer(run.options, run.parameters);
  const auto refuses = [&](const OptimizerState& saved, const std::string& text) {
    try {
      optimizer->load(saved);
      ADD_FAILURE() << text;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.kind(), base::ErrorKind::conflict);
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  };
  OptimizerState saved = optimizer->state();
  saved.erase("vector.step");
  refuses(saved, "no tensor vector.step");
  saved = optimizer->state();
  saved["other.step"] = at::ones({});
  refuses(saved, "unknown tensor other.step");
  saved = optimizer->state();
  saved["vector.exp_avg"] = at::ones({25});
  refuses(saved, "Float[25], expected Float[24]");
}

TEST(Optimizer, RefusesImpossibleOptionsAndParameters) {
  const Parameters good = {{.name = "a", .value = at::ones({2, 2}).requires_grad_()}};
  EXPECT_THROW(make_optimizer({.beta1 = 1}, good), base::Error);
  EXPECT_THROW(make_optimizer({.epsilon = 0}, good), base::Error);
  EXPECT_THROW(make_optimizer({.weight_decay = -1}, good), base::Error);
  EXPECT_THROW(make_optimizer({.weight_decay = std::nan("")}, good), base::Error);
  EXPECT_THROW(make_optimizer({}, {{.name = "frozen", .value = at::ones({2})}}), base::Error);
  EXPECT_THROW(make_optimizer({}, {good[0], good[0]}), base::Error);
  Parameters parts = good;
  parts[0].row_parts = {1, 2};
  EXPECT_THROW(make_optimizer({}, parts), base::Error);
}

// torch.nn.utils.clip_grad_norm_ over all four tensors.
TEST(Gradients, AreClippedAsTorchDoes) {
  Case run("adamw");
  for (Parameter& p : run.parameters) p.value.mutable_grad() = gradient(p.name, 0);
  const nlohmann::json& want = golden().settings().at("clip");
  EXPECT_NEAR(clip_gradients(run.parameters, want.at("max_norm")), want.at("norm"),
              1e-5 * want.at("norm").get<double>());
  test::expect_close(run.parameters[0].value.grad(), golden().at("clip.matrix"), {.relative = 1e-6});
  EXPECT_NEAR(gradient_norm(run.parameters), want.at("max_norm"), 1e-5);
  const at::Tensor before = run.parameters[0].value.grad().clone();
  clip_gradients(run.parameters, 2.0);
  EXPECT_TRUE(at::equal(run.parameters[0].value.grad(), before)) << "a norm below the bound changes nothing";
}

TEST(Gradients, NameWhatIsNotFinite) {
  Case run("adamw");
  EXPECT_EQ(gradient_norm(run.parameters), 0) << "no gradients yet";
  for (Parameter& p : run.parameters) p.value.mutable_grad() = gradient(p.name, 0);
  EXPECT_FALSE(first_non_finite(run.parameters));
  for (const float bad : {std::nanf(""), INFINITY}) {
    run.parameters[2].value.mutable_grad().view(-1)[5] = bad;
    EXPECT_FALSE(std::isfinite(clip_gradients(run.parameters, 1.0)));
    EXPECT_EQ(first_non_finite(run.parameters), run.parameters[2].name);
    EXPECT_TRUE(at::equal(run.parameters[0].value.grad(), gradient(run.parameters[0].name, 0))) << "not clipped by NaN";
  }
}

}  // namespace
}  // namespace calotype::train
