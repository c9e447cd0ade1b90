// Noise levels of a sampling run, from pure noise (1) to the picture (0).
//
//   std::vector<float> sigmas = schedule({.shifted = true}, 28, 4096);   // 29 values, 1 … 0
//
// Pure functions. Source: diffusers FlowMatchEulerDiscreteScheduler as FluxPipeline calls it; BFL sampling.py
// get_schedule.
#pragma once

#include <cstdint>
#include <vector>

namespace calotype::flux {

/// The fields of a scheduler_config.json that matter; defaults are those of FLUX.1 [dev].
struct ScheduleConfig {
  bool shifted = true;  ///< "use_dynamic_shifting": more steps near noise for larger pictures
  double shift = 1.0;   ///< constant shift when not dynamic
  double base_shift = 0.5, max_shift = 1.15;
  double base_tokens = 256, max_tokens = 4096;
};

/// s of σ' = s·σ / (1 + (s − 1)·σ): e^μ, which grows with the picture, or the constant shift.
double shift_factor(const ScheduleConfig& config, int64_t image_tokens);

/// steps + 1 levels, strictly falling, the last one 0. steps ≥ 1; image_tokens = L.
std::vector<float> schedule(const ScheduleConfig& config, int steps, int64_t image_tokens);

}  // namespace calotype::flux
