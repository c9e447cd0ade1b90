// The fused ops as nodes of autograd's graph: the same forward kernels as without it, and hand-written gradients
// (fused_ops_backward_cpu, attention_backward_cpu, group_norm_cpu). fused_ops.cpp chooses; fused_ops.h documents
// shapes.
//
// They serve CPU tensors of f32 or bf16, in nested backward passes too (gradient checkpointing). Gradients of gradients
// are refused.
#pragma once

#include "kernels/fused_ops.h"

namespace calotype::kernels::autograd {

Tensor norm_modulate(const Tensor& x_BLD, const Modulation& m);
Tensor gate_residual(const Tensor& x_BLD, const Tensor& gate_BD, const Tensor& y_BLD);
Tensor gelu_tanh(const Tensor& x);
Heads qk_norm_rope(const std::vector<QkvStream>& streams, const RotaryTable& table, int64_t head_width);
Tensor attention(const Heads& heads);
Tensor concat_gelu(const Tensor& attention_BND, const Tensor& mlp_BNM);
Tensor group_norm_silu(const Tensor& x_BCHW, const Tensor& weight_C, const Tensor& bias_C, int64_t groups, double eps);

}  // namespace calotype::kernels::autograd
