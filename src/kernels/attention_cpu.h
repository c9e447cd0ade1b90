// Attention on the CPU by blocks of queries and keys with a running softmax (Dao et al. 2022), on oneDNN's small matrix
// products. Scores and sums are f32; probabilities are rounded to the input type for the second product, as ATen does.
//
// Where the machine lacks block products of bf16, bf16 heads are multiplied as f32. ATen's own CPU kernel reaches a
// sixth of this one's speed in bf16 without AMX (bench/results.md).
#pragma once

#include "kernels/fused_ops.h"

namespace calotype::kernels::cpu {

/// True when this machine has oneDNN's block products and the shape fits (contiguous, even head width).
bool attention_serves(const Heads& heads);

/// As kernels::attention. The result does not depend on the number of threads.
Tensor attention(const Heads& heads);

/// What the gradient needs besides the heads (attention_backward_cpu.h).
struct AttentionResult {
  Tensor out_BND;
  Tensor log_sum_exp_BHN;  ///< f32, log Σ exp(q·kᵀ/√K) of each query
};
/// The same bits as attention(), on heads that attention_serves().
AttentionResult recorded_attention(const Heads& heads);

}  // namespace calotype::kernels::cpu
