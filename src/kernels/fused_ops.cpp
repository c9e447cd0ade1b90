#include "kernels/fused_ops.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/attention_cpu.h"
#include "kernels/fused_ops_cpu.h"

namespace calotype::kernels {
namespace {

bool recorded(const Tensor& t) { return at::GradMode::is_enabled() && t.requires_grad(); }

bool simd_serves(const Tensor& t) {
  return t.is_cpu() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16) && !recorded(t) &&
         t.stride(-1) == 1;
}

}  // namespace

Tensor norm_modulate(const Tensor& x_BLD, const Modulation& m) {
  return simd_serves(x_BLD) && !recorded(m.shift) ? cpu::norm_modulate(x_BLD, m) : reference::norm_modulate(x_BLD, m);
}

Tensor gate_residual(const Tensor& x_BLD, const Tensor& gate_BD, const Tensor& y_BLD) {
  return simd_serves(x_BLD) && simd_serves(y_BLD) && !recorded(gate_BD)
             ? cpu::gate_residual(x_BLD, gate_BD, y_BLD)
             : reference::gate_residual(x_BLD, gate_BD, y_BLD);
}

Tensor gelu_tanh(const Tensor& x) { return simd_serves(x) ? cpu::gelu_tanh(x) : reference::gelu_tanh(x); }

Heads qk_norm_rope(const std::vector<QkvStream>& streams, const RotaryTable& table, int64_t head_width) {
  for (const QkvStream& stream : streams)
    if (!simd_serves(stream.qkv_BLE) || recorded(stream.q_scale_K))
      return reference::qk_norm_rope(streams, table, head_width);
  return cpu::qk_norm_rope(streams, table, head_width);
}

Tensor attention(const Heads& heads) {
  return simd_serves(heads.q_BHNK) && cpu::attention_serves(heads) ? cpu::attention(heads)
                                                                   : reference::attention(heads);
}

Tensor concat_gelu(const Tensor& attention_BND, const Tensor& mlp_BNM) {
  return simd_serves(attention_BND) && simd_serves(mlp_BNM) ? cpu::concat_gelu(attention_BND, mlp_BNM)
                                                            : reference::concat_gelu(attention_BND, mlp_BNM);
}

}  // namespace calotype::kernels
