#include <ATen/ATen.h>

#include "kernels/fused_ops.h"

namespace calotype::kernels::reference {
namespace {

constexpr double kEpsilon = 1e-6;

// Neighbouring elements are a pair (x0, x1) → (x0·cos − x1·sin, x1·cos + x0·sin), in f32.
Tensor rotate(const Tensor& x_BHNK, const RotaryTable& table) {
  const Tensor pairs = x_BHNK.to(at::kFloat).unflatten(-1, {-1, 2});
  const Tensor x0 = pairs.select(-1, 0), x1 = pairs.select(-1, 1);
  const Tensor rotated = at::stack({x0 * table.cos_NC - x1 * table.sin_NC, x1 * table.cos_NC + x0 * table.sin_NC}, -1);
  return rotated.flatten(-2).to(x_BHNK.scalar_type());
}

}  // namespace

Tensor norm_modulate(const Tensor& x_BLD, const Modulation& m) {
  const Tensor normed = at::layer_norm(x_BLD, {x_BLD.size(-1)}, {}, {}, kEpsilon);
  return normed * (1 + m.scale.unsqueeze(1)) + m.shift.unsqueeze(1);
}

Tensor gate_residual(const Tensor& x_BLD, const Tensor& gate_BD, const Tensor& y_BLD) {
  return x_BLD + gate_BD.unsqueeze(1) * y_BLD;
}

Tensor gelu_tanh(const Tensor& x) { return at::gelu(x, "tanh"); }

Heads qk_norm_rope(const std::vector<QkvStream>& streams, const RotaryTable& table, int64_t head_width) {
  std::vector<Tensor> q, k, v;
  for (const QkvStream& stream : streams) {
    const int64_t width = stream.qkv_BLE.size(-1) / 3;
    const auto part = [&](int64_t i) {
      return stream.qkv_BLE.narrow(-1, i * width, width).unflatten(-1, {-1, head_width}).transpose(1, 2);
    };
    q.push_back(at::rms_norm(part(0), {head_width}, stream.q_scale_K, kEpsilon));
    k.push_back(at::rms_norm(part(1), {head_width}, stream.k_scale_K, kEpsilon));
    v.push_back(part(2));
  }
  return {rotate(at::cat(q, 2), table), rotate(at::cat(k, 2), table), at::cat(v, 2)};
}

Tensor attention(const Heads& heads) {
  const Tensor out_BHNK = at::scaled_dot_product_attention(heads.q_BHNK, heads.k_BHNK, heads.v_BHNK);
  return out_BHNK.transpose(1, 2).flatten(2);
}

Tensor concat_gelu(const Tensor& attention_BND, const Tensor& mlp_BNM) {
  return at::cat({attention_BND, gelu_tanh(mlp_BNM)}, -1);
}

Tensor group_norm_silu(const Tensor& x_BCHW, const Tensor& weight_C, const Tensor& bias_C, int64_t groups, double eps) {
  const at::ScalarType dtype = x_BCHW.scalar_type();
  Tensor normed = at::group_norm(x_BCHW, groups, weight_C.to(dtype), bias_C.to(dtype), eps);
  return normed.requires_grad() ? at::silu(normed) : at::silu_(normed);  // nothing else holds the normalised values
}

}  // namespace calotype::kernels::reference
