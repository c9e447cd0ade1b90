// The element-wise work between the matrix products of a FLUX.1 block, each chain as one pass over memory.
//
//   Tensor u_BLD = norm_modulate(x_BLD, {.shift = shift_BD, .scale = scale_BD});
//
// Shapes: B batch, L tokens, T text tokens, N all tokens, D width, H heads, K head width. Tensors are f32, bf16 or f16.
// Each op rounds where the reference rounds (docs/numerics.md), so 16-bit results agree with unfused ones up to the
// order of sums. CPU tensors of f32 and bf16 take the SIMD kernels of fused_ops_cpu.cpp and, when autograd records, the
// gradients of fused_ops_autograd.cpp; everything else takes the ATen chains of fused_ops_reference.cpp. Modulation and
// scales may be f32 where activations are bf16; their gradients have their own type. Thread-safe; work is spread over
// ATen's threads, and neither results nor gradients depend on their number.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace calotype::kernels {

using at::Tensor;

struct Modulation {
  Tensor shift, scale, gate;  ///< [B, D] each; gate is undefined where there is none
};

/// (1 + scale) · LayerNorm(x) + shift; x [B, L, D], no affine, eps 1e-6. BFL modules/layers.py DoubleStreamBlock.
Tensor norm_modulate(const Tensor& x_BLD, const Modulation& m);

/// x + gate · y; x, y [B, L, D].
Tensor gate_residual(const Tensor& x_BLD, const Tensor& gate_BD, const Tensor& y_BLD);

/// tanh-approximated GELU of any shape.
Tensor gelu_tanh(const Tensor& x);

/// Cosine and sine of the rotary angles, f32 [N, K/2] each.
struct RotaryTable {
  Tensor cos_NC, sin_NC;
};

/// Projections of one stream of tokens before attention.
struct QkvStream {
  Tensor qkv_BLE;               ///< [B, L, E], E = 3·H·K: q, k and v side by side; rows may be strided
  Tensor q_scale_K, k_scale_K;  ///< RMSNorm scales
};

struct Heads {
  Tensor q_BHNK, k_BHNK, v_BHNK;
};

/// Splits the streams into heads, RMS-normalises q and k (eps 1e-6), rotates them by position, and joins the streams
/// along the tokens in the order given (text first). BFL modules/layers.py QKNorm and math.py apply_rope.
Heads qk_norm_rope(const std::vector<QkvStream>& streams, const RotaryTable& table, int64_t head_width);

/// softmax(q·kᵀ/√K)·v, no mask → [B, N, H·K].
Tensor attention(const Heads& heads);

/// [attention | gelu_tanh(mlp)] side by side: [B, N, D] and [B, N, M] → [B, N, D + M]; mlp may be strided rows.
Tensor concat_gelu(const Tensor& attention_BND, const Tensor& mlp_BNM);

/// silu(group_norm(x)); x [B, C, H, W] contiguous or channels_last, which the result keeps; C divisible by `groups`;
/// weight and bias may be f32 where x is not.
Tensor group_norm_silu(const Tensor& x_BCHW, const Tensor& weight_C, const Tensor& bias_C, int64_t groups, double eps);

/// The same in plain ATen calls: what the fused kernels are compared with, and what other devices run.
namespace reference {
Tensor norm_modulate(const Tensor& x_BLD, const Modulation& m);
Tensor gate_residual(const Tensor& x_BLD, const Tensor& gate_BD, const Tensor& y_BLD);
Tensor gelu_tanh(const Tensor& x);
Heads qk_norm_rope(const std::vector<QkvStream>& streams, const RotaryTable& table, int64_t head_width);
Tensor attention(const Heads& heads);
Tensor concat_gelu(const Tensor& attention_BND, const Tensor& mlp_BNM);
Tensor group_norm_silu(const Tensor& x_BCHW, const Tensor& weight_C, const Tensor& bias_C, int64_t groups, double eps);
}  // namespace reference

}  // namespace calotype::kernels
