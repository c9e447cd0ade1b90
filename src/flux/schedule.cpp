#include "flux/schedule.h"

#include <cmath>

namespace calotype::flux {

double shift_factor(const ScheduleConfig& config, int64_t image_tokens) {
  if (!config.shifted) return config.shift;
  const double slope = (config.max_shift - config.base_shift) / (config.max_tokens - config.base_tokens);
  return std::exp(config.base_shift + slope * (static_cast<double>(image_tokens) - config.base_tokens));
}

std::vector<float> schedule(const ScheduleConfig& config, int steps, int64_t image_tokens) {
  const double s = shift_factor(config, image_tokens);
  std::vector<float> sigmas;
  for (int i = 0; i < steps; ++i) {
    const double t = 1.0 - i / static_cast<double>(steps);
    sigmas.push_back(static_cast<float>(s / (s + (1.0 / t - 1.0))));
  }
  sigmas.push_back(0.0f);
  return sigmas;
}

}  // namespace calotype::flux
