#include "train/average.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/golden.h"

namespace calotype::train {
namespace {

// torch.optim.swa_utils.AveragedModel, decay 0.9, by tools/reference/optimizers.py; the same arithmetic.
TEST(Average, MatchesTorch) {
  const test::Golden golden("optimizers");
  Parameters parameters = {{.name = "vector", .value = golden.at("start.vector").requires_grad_()}};
  Average average(parameters, {.decay = 0.9});
  for (int64_t step = 0; step < 20; ++step) {
    const at::NoGradGuard no_grad;
    parameters[0].value.copy_(golden.at("pull.vector") + at::roll(golden.at("noise.vector"), 13 * step));
    average.update();
  }
  test::expect_close(average.state().at("vector"), golden.at("average.vector"), {.relative = 1e-6});
}

// By hand: after values 1, 1, … from 0, the distance to 1 is the product of the decays min(0.5, (1 + s) / (10 + s)).
TEST(Average, WarmsUp) {
  Parameters parameters = {{.name = "x", .value = at::zeros({1}).requires_grad_()}};
  Average average(parameters, {.decay = 0.5, .warm_up = true});
  parameters[0].value.detach().fill_(1);
  double distance = 1;
  for (int s = 0; s < 12; ++s) {
    average.update();
    distance *= std::min(0.5, (1.0 + s) / (10.0 + s));
    EXPECT_NEAR(average.state().at("x").item<double>(), 1 - distance, 1e-6) << s;
  }
}

TEST(Average, SwapsBothWaysWithoutLosingABit) {
  const test::Golden golden("optimizers");
  Parameters parameters = {{.name = "matrix", .value = golden.at("start.matrix").requires_grad_()}};
  const at::Tensor layer = parameters[0].value.detach().narrow(0, 3, 2);  // a layer's view of part of it
  Average average(parameters, {.decay = 0.9});
  parameters[0].value.detach().mul_(1.7);
  average.update();
  const at::Tensor value = parameters[0].value.detach().clone(), mean = average.state().at("matrix").clone();
  ASSERT_FALSE(at::equal(value, mean));
  {
    const auto swapped = average.swap();
    EXPECT_TRUE(at::equal(parameters[0].value, mean));
    EXPECT_TRUE(at::equal(layer, mean.narrow(0, 3, 2)));
    EXPECT_THROW(average.update(), base::Error);
    EXPECT_THROW(average.state(), base::Error);
    EXPECT_THROW(Average::Swap second(average), base::Error);
  }
  EXPECT_TRUE(at::equal(parameters[0].value, value));
  EXPECT_TRUE(at::equal(average.state().at("matrix"), mean));
  EXPECT_TRUE(parameters[0].value.requires_grad());
}

TEST(Average, ResumesBitForBit) {
  Parameters parameters = {{.name = "x", .value = at::zeros({8}).requires_grad_()}};
  const auto run = [&](Average& average, int begin, int end) {
    for (int s = begin; s < end; ++s) {
      parameters[0].value.detach().copy_(at::arange(8).mul(0.37 * s).sin());
      average.update();
    }
  };
  Average whole(parameters, {.decay = 0.8, .warm_up = true});
  run(whole, 0, 20);
  Average first(parameters, {.decay = 0.8, .warm_up = true});
  Average second(parameters, {.decay = 0.8, .warm_up = true});
  first.load({{"x", at::zeros({8})}, {"updates", at::zeros({}, at::kLong)}});
  run(first, 0, 10);
  second.load(first.state());
  run(second, 10, 20);
  EXPECT_TRUE(at::equal(whole.state().at("x"), second.state().at("x")));
  EXPECT_THROW(second.load({{"x", at::zeros({8})}}), base::Error);
}

TEST(Average, RefusesADecayOfOne) { EXPECT_THROW(Average({}, {.decay = 1}), base::Error); }

}  // namespace
}  // namespace calotype::train
