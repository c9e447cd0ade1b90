#include "flux/flux_transformer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/probe.h"
#include "flux/flux_math.h"
#include "flux/recompute.h"

namespace calotype::flux {

using base::probe;

namespace {

/// With `again`, a block keeps only its input for the backward pass.
Streams run(const DoubleBlock& block, const Streams& in, const Tensor& vec_BD, const RotaryTable& table, bool again) {
  if (!again) return block(in, vec_BD, table);
  const auto out = recomputed({in.img_BID, in.txt_BTD, vec_BD}, [&block, table](const std::vector<Tensor>& t) {
    const Streams streams = block({.img_BID = t[0], .txt_BTD = t[1]}, t[2], table);
    return std::vector<Tensor>{streams.img_BID, streams.txt_BTD};
  });
  return {.img_BID = out[0], .txt_BTD = out[1]};
}

Tensor run(const SingleBlock& block, const Tensor& x_BND, const Tensor& vec_BD, const RotaryTable& table, bool again) {
  if (!again) return block(x_BND, vec_BD, table);
  return recomputed({x_BND, vec_BD}, [&block, table](const std::vector<Tensor>& t) {
    return std::vector<Tensor>{block(t[0], t[1], table)};
  })[0];
}

}  // namespace

MlpEmbedder::MlpEmbedder(const Scope& scope, int64_t in, int64_t width)
    : in_layer(scope / "in_layer", {.in = in, .out = width}),
      out_layer(scope / "out_layer", {.in = width, .out = width}) {}

Tensor MlpEmbedder::operator()(const Tensor& x_BC) const { return out_layer(at::silu(in_layer(x_BC))); }

FluxTransformer::FluxTransformer(const weights::TensorIndex& index, weights::LoadOptions options)
    : FluxTransformer(transformer_config(index), Scope(index, options)) {
  scope_.finish();
}

FluxTransformer::FluxTransformer(const TransformerConfig& config, const Scope& scope)
    : config_(config),
      dtype_(scope.options().dtype),
      scope_(scope),
      img_in_(scope_ / "img_in", {.in = config_.in_channels, .out = config_.width}),
      txt_in_(scope_ / "txt_in", {.in = config_.text_width, .out = config_.width}),
      time_in_(scope_ / "time_in", config_.time_width, config_.width),
      vector_in_(scope_ / "vector_in", config_.pooled_width, config_.width),
      final_modulation_(scope_ / "final_layer.adaLN_modulation.1", config_.width, 2),
      final_linear_(scope_ / "final_layer.linear", {.in = config_.width, .out = config_.out_channels}) {
  if (config_.guidance) guidance_in_.emplace(scope_ / "guidance_in", config_.time_width, config_.width);
  for (int i = 0; i < config_.double_blocks; ++i) double_blocks_.emplace_back(scope_ / "double_blocks" / i, config_);
  for (int i = 0; i < config_.single_blocks; ++i) single_blocks_.emplace_back(scope_ / "single_blocks" / i, config_);
}

Tensor FluxTransformer::embed_vector(const Conditioning& cond, const Tensor& sigma_B) const {
  const auto f32 = cond.pooled_BP.options().dtype(at::kFloat);
  // The round trip through thousands in the compute type is diffusers'; in bf16 it moves 904.53 to 904.
  const Tensor time = ((sigma_B.to(f32) * 1000.0f).to(dtype_) / 1000).to(dtype_) * 1000;
  Tensor vec_BD = time_in_(time_embedding(time, config_.time_width, dtype_));
  if (guidance_in_) {
    const Tensor guidance = at::full({cond.pooled_BP.size(0)}, cond.guidance, f32).to(dtype_) * 1000;
    vec_BD = vec_BD + (*guidance_in_)(time_embedding(guidance, config_.time_width, dtype_));
  }
  return vec_BD + vector_in_(cond.pooled_BP);
}

Tensor FluxTransformer::forward(const Tensor& x_BIC, const Conditioning& cond, float sigma, LatentSize size) const {
  return forward(x_BIC, cond, at::full({x_BIC.size(0)}, sigma, at::kFloat), size);
}

Tensor FluxTransformer::forward(const Tensor& x_BIC, const Conditioning& cond, const Tensor& sigma_B,
                                LatentSize size) const {
  const int64_t text = cond.text_BTE.size(1);
  const Tensor vec_BD = embed_vector(cond, sigma_B);
  kernels::RotaryTable table = rotary_table(positions(text, size), config_.axes);
  table = {table.cos_NC.to(x_BIC.device()), table.sin_NC.to(x_BIC.device())};
  probe("vec", vec_BD);

  const bool again = scope_.options().recompute && at::GradMode::is_enabled();
  Streams s{.img_BID = img_in_(x_BIC), .txt_BTD = txt_in_(cond.text_BTE)};
  probe("img_in", s.img_BID);
  probe("txt_in", s.txt_BTD);
  for (const DoubleBlock& block : double_blocks_) s = run(block, s, vec_BD, table, again);

  Tensor x_BND = at::cat({s.txt_BTD, s.img_BID}, 1);
  for (const SingleBlock& block : single_blocks_) x_BND = run(block, x_BND, vec_BD, table, again);

  const Tensor img_BID = x_BND.narrow(1, text, x_BIC.size(1));
  const Tensor out = final_linear_(kernels::norm_modulate(img_BID, final_modulation_(vec_BD)[0]));
  probe("out", out);
  return out;
}

}  // namespace calotype::flux
