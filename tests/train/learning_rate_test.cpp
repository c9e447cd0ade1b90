#include "train/learning_rate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/golden.h"

namespace calotype::train {
namespace {

// diffusers.optimization.get_scheduler, 20 of 100 steps warm-up, by tools/reference/optimizers.py. Its warm-up starts
// with a rate of zero, ours is one step ahead; the rest is the same, to f32, as which golden values are read.
TEST(LearningRate, MatchesDiffusersAfterTheWarmUp) {
  const test::Golden golden("optimizers");
  for (const auto& [schedule, name] : {std::pair{Schedule::constant, "constant_with_warmup"},
                                       {Schedule::cosine, "cosine"},
                                       {Schedule::linear, "linear"}}) {
    const at::Tensor want = golden.at(std::string("rate.") + name);
    ASSERT_EQ(want.numel(), 100);
    for (int64_t step = 0; step < 100; ++step) {
      const double rate = learning_rate({.peak = 1, .schedule = schedule, .steps = 100, .warm_up = 20}, step);
      EXPECT_NEAR(rate, want[step < 20 ? step + 1 : step].item<double>(), 1e-7) << name << " " << step;
    }
  }
}

TEST(LearningRate, HoldsThePeakUntilTheDecayingPart) {
  const LearningRateOptions options{
      .peak = 2, .schedule = Schedule::linear, .steps = 110, .warm_up = 10, .decay_fraction = 0.6};
  EXPECT_EQ(learning_rate(options, 9), 2);
  EXPECT_EQ(learning_rate(options, 50), 2);
  EXPECT_DOUBLE_EQ(learning_rate(options, 80), 1);
  EXPECT_NEAR(learning_rate(options, 109), 2.0 / 60, 1e-12);
  EXPECT_EQ(learning_rate(options, 110), 0) << "past the end";
  EXPECT_EQ(learning_rate(options, 1000), 0) << "past the end";
  LearningRateOptions never = options;
  never.decay_fraction = 0;
  EXPECT_EQ(learning_rate(never, 109), 2);
}

TEST(LearningRate, SurvivesRunsShorterThanTheirWarmUp) {
  const LearningRateOptions options{.peak = 1, .schedule = Schedule::cosine, .steps = 5, .warm_up = 10};
  EXPECT_DOUBLE_EQ(learning_rate(options, 4), 0.5);
  EXPECT_EQ(learning_rate({.peak = 1, .schedule = Schedule::linear, .steps = 1}, 0), 1);
}

TEST(LearningRate, RefusesOptionsOutOfRange) {
  EXPECT_THROW(learning_rate({.peak = -1}, 0), base::Error);
  EXPECT_THROW(learning_rate({.peak = INFINITY}, 0), base::Error);
  EXPECT_THROW(learning_rate({.warm_up = -1}, 0), base::Error);
  EXPECT_THROW(learning_rate({.decay_fraction = 1.5}, 0), base::Error);
}

TEST(LearningRate, NamesComeBack) {
  for (const Schedule schedule : {Schedule::constant, Schedule::cosine, Schedule::linear})
    EXPECT_EQ(schedule_from_name(name(schedule)), schedule);
  EXPECT_FALSE(schedule_from_name("polynomial"));
}

}  // namespace
}  // namespace calotype::train
