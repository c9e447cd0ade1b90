// SIMD inner loops of group normalisation with SiLU over runs of numbers whose channels repeat with a period: channels
// that lie side by side have the period of all channels, a run within one channel has equal coefficients throughout.
//
// T is float or BFloat16 bits (uint16_t); arithmetic is f32. A period is a multiple of kPeriodUnit, so that every
// instruction set walks it in whole vectors. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace calotype::kernels {

inline constexpr size_t kPeriodUnit = 64;

/// h = (x − mean) · factor + bias, one number of each per place in the period.
struct PeriodicNorm {
  const float* mean;
  const float* factor;
  const float* bias;
  size_t period;
};

/// sum[i % period] += x[i].
void add_periodic(const float* x, size_t count, size_t period, float* sum);
void add_periodic(const uint16_t* x, size_t count, size_t period, float* sum);
/// sum[i % period] += (x[i] − mean[i % period])².
void add_periodic_squares(const float* x, size_t count, const PeriodicNorm& norm, float* sum);
void add_periodic_squares(const uint16_t* x, size_t count, const PeriodicNorm& norm, float* sum);

/// out = silu(h), h rounded to T before.
void norm_silu_run(const float* x, size_t count, const PeriodicNorm& norm, float* out);
void norm_silu_run(const uint16_t* x, size_t count, const PeriodicNorm& norm, uint16_t* out);

/// d_h = grad · silu′(h), d_bias += d_h, d_centred += d_h · (x − mean).
struct PeriodicSums {
  float* d_bias;
  float* d_centred;
};
void norm_silu_gradient_sums(const float* x, const float* grad, size_t count, const PeriodicNorm& norm,
                             const PeriodicSums& sums, float* d_h);
void norm_silu_gradient_sums(const uint16_t* x, const uint16_t* grad, size_t count, const PeriodicNorm& norm,
                             const PeriodicSums& sums, uint16_t* d_h);

/// d_h becomes d_h · factor + (x − mean) · slope + offset.
struct PeriodicLine {
  const float* slope;
  const float* offset;
};
void norm_input_gradient_run(const float* x, size_t count, const PeriodicNorm& norm, const PeriodicLine& line,
                             float* d_h);
void norm_input_gradient_run(const uint16_t* x, size_t count, const PeriodicNorm& norm, const PeriodicLine& line,
                             uint16_t* d_h);

}  // namespace calotype::kernels
