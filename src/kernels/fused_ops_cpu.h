// The fused ops on CPU tensors of f32 or bf16 (fused_ops.h documents shapes); fused_ops.cpp chooses.
#pragma once

#include "kernels/fused_ops.h"

namespace calotype::kernels::cpu {

Tensor norm_modulate(const Tensor& x_BLD, const Modulation& m);
Tensor gate_residual(const Tensor& x_BLD, const Tensor& gate_BD, const Tensor& y_BLD);
Tensor gelu_tanh(const Tensor& x);
Heads qk_norm_rope(const std::vector<QkvStream>& streams, const RotaryTable& table, int64_t head_width);
/// A rotary table with one value per number instead of one per pair: (c, c) and (−s, s), f32 [N, K] each.
struct WideRotary {
  Tensor cosine_NK, sine_NK;
};
WideRotary widen(const RotaryTable& table);

Tensor concat_gelu(const Tensor& attention_BND, const Tensor& mlp_BNM);

}  // namespace calotype::kernels::cpu
