#include "flux/flux_blocks.h"

#include <ATen/ATen.h>

#include "base/probe.h"

namespace calotype::flux {

using base::probe;
using kernels::gate_residual;
using kernels::norm_modulate;

namespace {

// f16 overflows at two places of the residual stream; the reference clamps there (diffusers transformer_flux.py).
Tensor clamp_f16(const Tensor& x) { return x.scalar_type() == at::kHalf ? x.clamp(-65504, 65504) : x; }

}  // namespace

ModulationLayer::ModulationLayer(const Scope& lin_scope, int64_t width, int64_t chunk_count)
    : chunks(chunk_count), lin(lin_scope, {.in = width, .out = chunk_count * width}) {}

std::vector<Modulation> ModulationLayer::operator()(const Tensor& vec_BD) const {
  const std::vector<Tensor> c = lin(at::silu(vec_BD)).chunk(chunks, 1);
  if (chunks == 2) return {{.shift = c[0], .scale = c[1]}};
  std::vector<Modulation> groups;
  for (size_t i = 0; i < c.size(); i += 3) groups.push_back({.shift = c[i], .scale = c[i + 1], .gate = c[i + 2]});
  return groups;
}

QkNorm::QkNorm(const Scope& scope, int64_t head_width)
    : query_norm(scope.tensor("query_norm.scale", {head_width})),
      key_norm(scope.tensor("key_norm.scale", {head_width})) {}

SelfAttention::SelfAttention(const Scope& scope, const TransformerConfig& c)
    : qkv(scope / "qkv", {.in = c.width, .out = 3 * c.width}),
      proj(scope / "proj", {.in = c.width, .out = c.width}),
      norm(scope / "norm", c.head_width) {}

Mlp::Mlp(const Scope& scope, const TransformerConfig& c)
    : in(scope / 0, {.in = c.width, .out = c.mlp_width}), out(scope / 2, {.in = c.mlp_width, .out = c.width}) {}

Tensor Mlp::operator()(const Tensor& x_BLD) const { return out(kernels::gelu_tanh(in(x_BLD))); }

DoubleBlock::DoubleBlock(const Scope& scope, const TransformerConfig& c)
    : path(scope.path()),
      head_width(c.head_width),
      img_mod(scope / "img_mod.lin", c.width, 6),
      txt_mod(scope / "txt_mod.lin", c.width, 6),
      img_attn(scope / "img_attn", c),
      txt_attn(scope / "txt_attn", c),
      img_mlp(scope / "img_mlp", c),
      txt_mlp(scope / "txt_mlp", c) {}

Streams DoubleBlock::operator()(const Streams& in, const Tensor& vec_BD, const RotaryTable& table) const {
  const std::vector<Modulation> img_m = img_mod(vec_BD), txt_m = txt_mod(vec_BD);
  const int64_t text = in.txt_BTD.size(1), picture = in.img_BID.size(1);

  const Tensor img_qkv = img_attn.qkv(norm_modulate(in.img_BID, img_m[0]));
  const Tensor txt_qkv = txt_attn.qkv(norm_modulate(in.txt_BTD, txt_m[0]));
  const kernels::Heads heads = kernels::qk_norm_rope({{txt_qkv, txt_attn.norm.query_norm, txt_attn.norm.key_norm},
                                                      {img_qkv, img_attn.norm.query_norm, img_attn.norm.key_norm}},
                                                     table, head_width);
  probe(path, "q", heads.q_BHNK);
  const std::vector<Tensor> attended = kernels::attention(heads).split_with_sizes({text, picture}, 1);  // B T D, B I D

  Streams out;
  out.img_BID = gate_residual(in.img_BID, img_m[0].gate, img_attn.proj(attended[1]));
  out.txt_BTD = gate_residual(in.txt_BTD, txt_m[0].gate, txt_attn.proj(attended[0]));
  out.img_BID = gate_residual(out.img_BID, img_m[1].gate, img_mlp(norm_modulate(out.img_BID, img_m[1])));
  out.txt_BTD = gate_residual(out.txt_BTD, txt_m[1].gate, txt_mlp(norm_modulate(out.txt_BTD, txt_m[1])));
  out.txt_BTD = clamp_f16(out.txt_BTD);
  probe(path, "img", out.img_BID);
  probe(path, "txt", out.txt_BTD);
  return out;
}

SingleBlock::SingleBlock(const Scope& scope, const TransformerConfig& c)
    : path(scope.path()),
      head_width(c.head_width),
      width(c.width),
      modulation(scope / "modulation.lin", c.width, 3),
      linear1(scope / "linear1", {.in = c.width, .out = 3 * c.width + c.mlp_width}),
      linear2(scope / "linear2", {.in = c.width + c.mlp_width, .out = c.width}),
      norm(scope / "norm", c.head_width) {}

Tensor SingleBlock::operator()(const Tensor& x_BND, const Tensor& vec_BD, const RotaryTable& table) const {
  const Modulation m = modulation(vec_BD)[0];
  const Tensor projected = linear1(norm_modulate(x_BND, m));
  // A split's gradient is one concatenation; two narrows would cost two full tensors of zeros.
  const std::vector<Tensor> parts = projected.split_with_sizes({3 * width, projected.size(2) - 3 * width}, 2);
  const kernels::Heads heads = kernels::qk_norm_rope({{parts[0], norm.query_norm, norm.key_norm}}, table, head_width);
  const Tensor joined = kernels::concat_gelu(kernels::attention(heads), parts[1]);
  const Tensor out = clamp_f16(gate_residual(x_BND, m.gate, linear2(joined)));
  probe(path, out);
  return out;
}

}  // namespace calotype::flux
