#include "kernels/fused_ops.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/attention_cpu.h"
#include "kernels/fused_ops_autograd.h"
#include "kernels/fused_ops_cpu.h"
#include "kernels/fused_rows.h"
#include "kernels/group_norm_cpu.h"

namespace calotype::kernels {
namespace {

template <typename... Tensors>
bool recorded(const Tensors&... t) {
  return at::GradMode::is_enabled() && (t.requires_grad() || ...);
}

bool simd_type(const Tensor& t) {
  return t.is_cpu() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16);
}

/// Numbers of a row side by side, in a type that the SIMD rows know.
bool simd_serves(const Tensor& t) { return simd_type(t) && t.stride(-1) == 1; }

bool simd_serves(const Tensor& a, const Tensor& b) {
  return simd_serves(a) && simd_serves(b) && a.scalar_type() == b.scalar_type();
}

}  // namespace

Tensor norm_modulate(const Tensor& x_BLD, const Modulation& m) {
  if (!simd_serves(x_BLD)) return reference::norm_modulate(x_BLD, m);
  return recorded(x_BLD, m.shift, m.scale) ? autograd::norm_modulate(x_BLD, m) : cpu::norm_modulate(x_BLD, m);
}

Tensor gate_residual(const Tensor& x_BLD, const Tensor& gate_BD, const Tensor& y_BLD) {
  if (!simd_serves(x_BLD, y_BLD)) return reference::gate_residual(x_BLD, gate_BD, y_BLD);
  return recorded(x_BLD, gate_BD, y_BLD) ? autograd::gate_residual(x_BLD, gate_BD, y_BLD)
                                         : cpu::gate_residual(x_BLD, gate_BD, y_BLD);
}

Tensor gelu_tanh(const Tensor& x) {
  if (!simd_serves(x)) return reference::gelu_tanh(x);
  return recorded(x) ? autograd::gelu_tanh(x) : cpu::gelu_tanh(x);
}

Heads qk_norm_rope(const std::vector<QkvStream>& streams, const RotaryTable& table, int64_t head_width) {
  bool records = false;
  for (const QkvStream& s : streams) {
    if (!simd_serves(s.qkv_BLE, streams.front().qkv_BLE)) return reference::qk_norm_rope(streams, table, head_width);
    records |= recorded(s.qkv_BLE, s.q_scale_K, s.k_scale_K);
  }
  if (!records) return cpu::qk_norm_rope(streams, table, head_width);
  return head_width <= static_cast<int64_t>(kMaxHeadWidth) ? autograd::qk_norm_rope(streams, table, head_width)
                                                           : reference::qk_norm_rope(streams, table, head_width);
}

Tensor attention(const Heads& heads) {
  if (!simd_serves(heads.q_BHNK) || !cpu::attention_serves(heads)) return reference::attention(heads);
  return recorded(heads.q_BHNK, heads.k_BHNK, heads.v_BHNK) ? autograd::attention(heads) : cpu::attention(heads);
}

Tensor concat_gelu(const Tensor& attention_BND, const Tensor& mlp_BNM) {
  if (!simd_serves(attention_BND, mlp_BNM)) return reference::concat_gelu(attention_BND, mlp_BNM);
  return recorded(attention_BND, mlp_BNM) ? autograd::concat_gelu(attention_BND, mlp_BNM)
                                          : cpu::concat_gelu(attention_BND, mlp_BNM);
}

Tensor group_norm_silu(const Tensor& x_BCHW, const Tensor& weight_C, const Tensor& bias_C, int64_t groups, double eps) {
  if (!simd_type(x_BCHW)) return reference::group_norm_silu(x_BCHW, weight_C, bias_C, groups, eps);
  if (recorded(x_BCHW, weight_C, bias_C)) return autograd::group_norm_silu(x_BCHW, weight_C, bias_C, groups, eps);
  return cpu::group_norm_silu(x_BCHW, weight_C, bias_C, cpu::group_statistics(x_BCHW, groups, eps));
}

}  // namespace calotype::kernels
