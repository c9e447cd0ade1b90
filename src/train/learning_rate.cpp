#include "train/learning_rate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/error.h"

namespace calotype::train {
namespace {

using base::ErrorKind;
using NamedSchedule = std::pair<Schedule, std::string_view>;

constexpr std::array<NamedSchedule, 3> kNames = {
    {{Schedule::constant, "constant"}, {Schedule::cosine, "cosine"}, {Schedule::linear, "linear"}}};

void check_options(const LearningRateOptions& o) {
  base::check(o.peak >= 0 && std::isfinite(o.peak), ErrorKind::bad_input, "the learning rate is {}, expected 0 or more",
              o.peak);
  base::check(o.warm_up >= 0, ErrorKind::bad_input, "the warm-up has {} steps, expected 0 or more", o.warm_up);
  base::check(o.decay_fraction >= 0 && o.decay_fraction <= 1, ErrorKind::bad_input,
              "the decaying part of the run is {}, expected 0 to 1", o.decay_fraction);
}

}  // namespace

std::string_view name(Schedule schedule) { return std::ranges::find(kNames, schedule, &NamedSchedule::first)->second; }

std::optional<Schedule> schedule_from_name(std::string_view text) {
  const auto found = std::ranges::find(kNames, text, &NamedSchedule::second);
  return found == kNames.end() ? std::nullopt : std::optional(found->first);
}

double learning_rate(const LearningRateOptions& options, int64_t step) {
  check_options(options);
  if (step < options.warm_up)
    return options.peak * static_cast<double>(step + 1) / static_cast<double>(options.warm_up);
  const int64_t after = std::max<int64_t>(0, options.steps - options.warm_up);
  const int64_t decay = std::llround(options.decay_fraction * static_cast<double>(after));
  const int64_t into = step - (options.steps - decay);
  if (options.schedule == Schedule::constant || into < 0 || decay == 0) return options.peak;
  const double progress = std::min(1.0, static_cast<double>(into) / static_cast<double>(decay));
  return options.peak *
         (options.schedule == Schedule::linear ? 1 - progress : 0.5 * (1 + std::cos(std::numbers::pi * progress)));
}

}  // namespace calotype::train
