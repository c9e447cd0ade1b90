#include "flux/flux_transformer.h"

#include <ATen/ATen.h>

#include "base/probe.h"
#include "flux/flux_math.h"

namespace calotype::flux {

using base::probe;

MlpEmbedder::MlpEmbedder(const Scope& scope, int64_t in, int64_t width)
    : in_layer(scope / "in_layer", {.in = in, .out = width}),
      out_layer(scope / "out_layer", {.in = width, .out = width}) {}

Tensor MlpEmbedder::operator()(const Tensor& x_BC) const { return out_layer(at::silu(in_layer(x_BC))); }

FluxTransformer::FluxTransformer(const weights::TensorIndex& index, weights::LoadOptions options)
    : config_(transformer_config(index)),
      dtype_(options.dtype),
      scope_(index, options),
      img_in_(scope_ / "img_in", {.in = config_.in_channels, .out = config_.width}),
      txt_in_(scope_ / "txt_in", {.in = config_.text_width, .out = config_.width}),
      time_in_(scope_ / "time_in", config_.time_width, config_.width),
      vector_in_(scope_ / "vector_in", config_.pooled_width, config_.width),
      final_modulation_(scope_ / "final_layer.adaLN_modulation.1", config_.width, 2),
      final_linear_(scope_ / "final_layer.linear", {.in = config_.width, .out = config_.out_channels}) {
  if (config_.guidance) guidance_in_.emplace(scope_ / "guidance_in", config_.time_width, config_.width);
  for (int i = 0; i < config_.double_blocks; ++i) double_blocks_.emplace_back(scope_ / "double_blocks" / i, config_);
  for (int i = 0; i < config_.single_blocks; ++i) single_blocks_.emplace_back(scope_ / "single_blocks" / i, config_);
  scope_.finish();
}

Tensor FluxTransformer::embed_vector(const Conditioning& cond, float sigma) const {
  const int64_t batch = cond.pooled_BP.size(0);
  const auto f32 = cond.pooled_BP.options().dtype(at::kFloat);
  // The round trip through thousands in the compute type is diffusers'; in bf16 it moves 904.53 to 904.
  const Tensor time = (at::full({batch}, sigma * 1000.0f, f32).to(dtype_) / 1000).to(dtype_) * 1000;
  Tensor vec_BD = time_in_(time_embedding(time, config_.time_width, dtype_));
  if (guidance_in_) {
    const Tensor guidance = at::full({batch}, cond.guidance, f32).to(dtype_) * 1000;
    vec_BD = vec_BD + (*guidance_in_)(time_embedding(guidance, config_.time_width, dtype_));
  }
  return vec_BD + vector_in_(cond.pooled_BP);
}

Tensor FluxTransformer::forward(const Tensor& x_BIC, const Conditioning& cond, float sigma, LatentSize size) const {
  const int64_t text = cond.text_BTE.size(1);
  const Tensor vec_BD = embed_vector(cond, sigma);
  kernels::RotaryTable table = rotary_table(positions(text, size), config_.axes);
  table = {table.cos_NC.to(x_BIC.device()), table.sin_NC.to(x_BIC.device())};
  probe("vec", vec_BD);

  Streams s{.img_BID = img_in_(x_BIC), .txt_BTD = txt_in_(cond.text_BTE)};
  probe("img_in", s.img_BID);
  probe("txt_in", s.txt_BTD);
  for (const DoubleBlock& block : double_blocks_) s = block(s, vec_BD, table);

  Tensor x_BND = at::cat({s.txt_BTD, s.img_BID}, 1);
  for (const SingleBlock& block : single_blocks_) x_BND = block(x_BND, vec_BD, table);

  const Tensor img_BID = x_BND.narrow(1, text, x_BIC.size(1));
  const Tensor out = final_linear_(kernels::norm_modulate(img_BID, final_modulation_(vec_BD)[0]));
  probe("out", out);
  return out;
}

}  // namespace calotype::flux
