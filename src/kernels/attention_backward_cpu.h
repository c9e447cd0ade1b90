// The gradient of attention on the CPU (Dao et al. 2022, algorithm 4): probabilities are recomputed from q, k and the
// saved logarithms of the sums, a block of keys and queries at a time, so that memory grows with N, not N².
//
// In bf16, scores, their gradients and all sums are f32; probabilities and score gradients are rounded to bf16 once, as
// operands of the next product. Threads take whole heads: more than B·H of them find no work.
#pragma once

#include "kernels/attention_cpu.h"

namespace calotype::kernels::cpu {

/// Gradients of q, k and v, [B, H, N, K] each, from that of out_BND; heads as recorded_attention() got them,
/// contiguous. Each thread needs about 9·N·K numbers. The result does not depend on the number of threads.
Heads attention_backward(const Tensor& grad_BND, const Heads& heads, const AttentionResult& result);

}  // namespace calotype::kernels::cpu
