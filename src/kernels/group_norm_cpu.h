// silu(group_norm(x)) and its gradient on CPU tensors of f32 or bf16, contiguous or channels_last, in two passes over
// memory each; what lies otherwise is copied to contiguous. Statistics are f32 within 32 Ki numbers (mean and squares
// around it) and joined in f64. Thread-safe; no result depends on the number of threads.
#pragma once

#include "kernels/fused_ops.h"

namespace calotype::kernels::cpu {

/// Mean and 1/σ of each sample's groups, f32 [B, G] each.
struct GroupStatistics {
  Tensor mean_BG, rstd_BG;
};
GroupStatistics group_statistics(const Tensor& x_BCHW, int64_t groups, double eps);

Tensor group_norm_silu(const Tensor& x_BCHW, const Tensor& weight_C, const Tensor& bias_C, const GroupStatistics& s);

/// Gradients of x, weight and bias; those of the parameters are f32. Any of them is computed with the others.
struct GroupNormGradients {
  Tensor x_BCHW, weight_C, bias_C;
};
GroupNormGradients group_norm_silu_backward(const Tensor& grad_BCHW, const Tensor& x_BCHW, const Tensor& weight_C,
                                            const Tensor& bias_C, const GroupStatistics& s);

}  // namespace calotype::kernels::cpu
