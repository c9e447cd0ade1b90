// The learning rate of every step of a run.
//
//   learning_rate({.peak = 1e-4, .schedule = Schedule::cosine, .steps = 1000, .warm_up = 50}, step)
//
// Pure functions: a resumed run gets the rates of the uninterrupted one.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace calotype::train {

enum class Schedule { constant, cosine, linear };
/// "constant", "cosine", "linear".
std::string_view name(Schedule schedule);
std::optional<Schedule> schedule_from_name(std::string_view name);

struct LearningRateOptions {
  double peak = 1e-4;
  Schedule schedule = Schedule::constant;
  int64_t steps = 0;    ///< updates of the whole run
  int64_t warm_up = 0;  ///< first updates, in which the rate grows evenly to the peak
  /// Part of the updates after the warm-up, at the end of the run, in which the rate falls from the peak towards zero;
  /// before it the peak is held. Not for constant.
  double decay_fraction = 1;
};

/// Rate of update `step` = 0 … steps − 1. Update s of the warm-up has (s + 1) / warm_up of the peak, so that none is
/// lost (PyTorch trainers start with a rate of 0); decays are those of transformers' get_linear_ and
/// get_cosine_schedule_with_warmup, whose last update is a little above zero. Error bad_input for options out of range.
double learning_rate(const LearningRateOptions& options, int64_t step);

}  // namespace calotype::train
