#include "text/clip_encoder.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace calotype::text {

using base::ErrorKind;
using weights::Linear;
using weights::Scope;

struct ClipEncoder::LayerNorm {
  Tensor weight, bias;
  LayerNorm(const Scope& s, int64_t width) : weight(s.tensor("weight", {width})), bias(s.tensor("bias", {width})) {}
  Tensor operator()(const Tensor& x, double epsilon) const {
    const at::ScalarType dtype = x.scalar_type();
    return at::layer_norm(x, {x.size(-1)}, weight.to(dtype), bias.to(dtype), epsilon);
  }
};

struct ClipEncoder::Layer {
  LayerNorm norm1, norm2;
  Linear q_proj, k_proj, v_proj, out_proj, fc1, fc2;

  Layer(const Scope& s, const ClipConfig& c)
      : norm1(s / "layer_norm1", c.width),
        norm2(s / "layer_norm2", c.width),
        q_proj(s / "self_attn.q_proj", {.in = c.width, .out = c.width}),
        k_proj(s / "self_attn.k_proj", {.in = c.width, .out = c.width}),
        v_proj(s / "self_attn.v_proj", {.in = c.width, .out = c.width}),
        out_proj(s / "self_attn.out_proj", {.in = c.width, .out = c.width}),
        fc1(s / "mlp.fc1", {.in = c.width, .out = c.mlp_width}),
        fc2(s / "mlp.fc2", {.in = c.mlp_width, .out = c.width}) {}

  Tensor operator()(const Tensor& x_BLD, const ClipConfig& c) const {
    const Tensor u = norm1(x_BLD, c.epsilon);
    const auto heads = [&](const Tensor& t) { return t.unflatten(2, {c.heads, -1}).transpose(1, 2); };
    const Tensor attended =
        at::scaled_dot_product_attention(heads(q_proj(u)), heads(k_proj(u)), heads(v_proj(u)), {}, 0.0,
                                         /*is_causal=*/true);
    const Tensor x = x_BLD + out_proj(attended.transpose(1, 2).flatten(2));
    const Tensor h = fc1(norm2(x, c.epsilon));
    return x + fc2(c.activation == ClipConfig::Activation::gelu ? at::gelu(h) : h * at::sigmoid(1.702 * h));
  }
};

ClipConfig clip_config(const weights::TensorIndex& index) {
  ClipConfig config;
  const auto tokens = index.shape("text_model.embeddings.token_embedding.weight");
  base::check(tokens.size() == 2, ErrorKind::corrupt_file,
              "{}: CLIP's token_embedding has shape {}, expected two dimensions", index.where(),
              files::shape_text(tokens));
  config.vocabulary = tokens[0];
  config.width = tokens[1];
  config.positions = index.shape("text_model.embeddings.position_embedding.weight").at(0);
  config.layers = index.count("text_model.encoder.layers.");
  config.mlp_width = config.layers ? index.shape("text_model.encoder.layers.0.mlp.fc1.weight").at(0) : 0;
  config.heads = std::max<int64_t>(1, config.width / 64);
  if (index.config.is_object()) {
    config.heads = index.config.value("num_attention_heads", config.heads);
    config.epsilon = index.config.value("layer_norm_eps", config.epsilon);
    config.eos = index.config.value("eos_token_id", config.eos);
    const std::string activation = index.config.value("hidden_act", "quick_gelu");
    base::check(activation == "quick_gelu" || activation == "gelu", ErrorKind::unsupported,
                "{}: CLIP's hidden_act is {}, expected quick_gelu or gelu", index.where(), base::printable(activation));
    if (activation == "gelu") config.activation = ClipConfig::Activation::gelu;
  }
  base::check(config.heads > 0 && config.width % config.heads == 0 && config.layers > 0, ErrorKind::corrupt_file,
              "{}: CLIP of width {} with {} heads and {} layers", index.where(), config.width, config.heads,
              config.layers);
  return config;
}

ClipEncoder::ClipEncoder(const weights::TensorIndex& index, weights::LoadOptions options)
    : ClipEncoder(clip_config(index), Scope(index, options)) {}

ClipEncoder::ClipEncoder(const ClipConfig& config, const Scope& root)
    : config_(config), dtype_(root.options().dtype) {
  const Scope model = root / "text_model";
  token_embedding_ = model.tensor("embeddings.token_embedding.weight", {config_.vocabulary, config_.width});
  position_embedding_ = model.tensor("embeddings.position_embedding.weight", {config_.positions, config_.width});
  for (int i = 0; i < config_.layers; ++i) layers_.emplace_back(model / "encoder.layers" / i, config_);
  final_norm_ = std::make_unique<LayerNorm>(model / "final_layer_norm", config_.width);
  root.finish();
}

ClipEncoder::~ClipEncoder() = default;
ClipEncoder::ClipEncoder(ClipEncoder&&) noexcept = default;

ClipEncoder::Output ClipEncoder::encode(const Tensor& ids_BL) const {
  const int64_t length = ids_BL.size(1);
  base::check(length <= config_.positions, ErrorKind::bad_input, "{} CLIP tokens, the model takes at most {}", length,
              config_.positions);
  base::check(ids_BL.lt(config_.vocabulary).all().item<bool>(), ErrorKind::bad_input,
              "the tokenizer makes ids up to {}, CLIP's vocabulary has {}; tokenizer and model do not belong together",
              ids_BL.max().item<int64_t>(), config_.vocabulary);
  const Tensor ids = ids_BL.to(token_embedding_.device());
  Tensor x_BLD = (at::embedding(token_embedding_, ids) + position_embedding_.narrow(0, 0, length)).to(dtype_);
  for (const Layer& layer : layers_) x_BLD = layer(x_BLD, config_);
  x_BLD = (*final_norm_)(x_BLD, config_.epsilon);
  const Tensor end_B = config_.eos == 2 ? ids.argmax(1) : ids.eq(config_.eos).to(at::kInt).argmax(1);
  const Tensor rows = at::arange(ids.size(0), ids.options());
  return {x_BLD, x_BLD.index({rows, end_B})};
}

}  // namespace calotype::text
