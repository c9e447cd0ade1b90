#include "flux/schedule.h"

#include <cmath>

namespace calotype::flux {

std::vector<float> schedule(const ScheduleConfig& config, int steps, int64_t image_tokens) {
  const double slope = (config.max_shift - config.base_shift) / (config.max_tokens - config.base_tokens);
  const double mu = config.base_shift + slope * (static_cast<double>(image_tokens) - config.base_tokens);
  std::vector<float> sigmas;
  for (int i = 0; i < steps; ++i) {
    const double t = 1.0 - i / static_cast<double>(steps);
    // Both are s/(s + 1/t − 1), with s = e^mu or the constant.
    const double s = config.shifted ? std::exp(mu) : config.shift;
    sigmas.push_back(static_cast<float>(s / (s + (1.0 / t - 1.0))));
  }
  sigmas.push_back(0.0f);
  return sigmas;
}

}  // namespace calotype::flux
