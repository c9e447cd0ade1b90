#include "text/t5_encoder.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "kernels/fused_ops.h"

namespace calotype::text {

using base::ErrorKind;
using weights::Linear;
using weights::Scope;

namespace {

/// Mean of squares in f32, rounded once, then the scale.
Tensor rms_norm(const Tensor& x, const Tensor& scale_D, double epsilon) {
  const Tensor x32 = x.to(at::kFloat);
  const Tensor normed = x32 * at::rsqrt(x32.square().mean(-1, true) + epsilon);
  return scale_D.to(x.scalar_type()) * normed.to(x.scalar_type());
}

/// Bucket of a distance (key − query): half of the buckets for each sign, near ones exact, far ones logarithmic.
int64_t bucket(int64_t distance, int64_t buckets, int64_t max_distance) {
  const int64_t half = buckets / 2, exact = half / 2;
  const int64_t sign = distance > 0 ? half : 0, n = std::abs(distance);
  if (n < exact) return sign + n;
  const double far = std::log(static_cast<float>(n) / static_cast<float>(exact)) /
                     std::log(static_cast<double>(max_distance) / static_cast<double>(exact)) *
                     static_cast<double>(half - exact);
  return sign + std::min(exact + static_cast<int64_t>(static_cast<float>(far)), half - 1);
}

}  // namespace

struct T5Encoder::Layer {
  Tensor attention_norm, mlp_norm;
  Linear q, k, v, o, wi_0, wo;
  std::optional<Linear> wi_1;

  Layer(const Scope& s, const T5Config& c)
      : attention_norm(s.tensor("layer.0.layer_norm.weight", {c.width})),
        mlp_norm(s.tensor("layer.1.layer_norm.weight", {c.width})),
        q(s / "layer.0.SelfAttention.q", {.in = c.width, .out = c.inner_width, .bias = false}),
        k(s / "layer.0.SelfAttention.k", {.in = c.width, .out = c.inner_width, .bias = false}),
        v(s / "layer.0.SelfAttention.v", {.in = c.width, .out = c.inner_width, .bias = false}),
        o(s / "layer.0.SelfAttention.o", {.in = c.inner_width, .out = c.width, .bias = false}),
        wi_0(s / (c.gated ? "layer.1.DenseReluDense.wi_0" : "layer.1.DenseReluDense.wi"),
             {.in = c.width, .out = c.mlp_width, .bias = false}),
        wo(s / "layer.1.DenseReluDense.wo", {.in = c.mlp_width, .out = c.width, .bias = false}) {
    if (c.gated)
      wi_1.emplace(s / "layer.1.DenseReluDense.wi_1",
                   weights::LinearShape{.in = c.width, .out = c.mlp_width, .bias = false});
  }

  Tensor operator()(const Tensor& x_BTD, const Tensor& bias_1HTT, const T5Config& c) const {
    const Tensor u = rms_norm(x_BTD, attention_norm, c.epsilon);
    const auto heads = [&](const Tensor& t) { return t.unflatten(2, {c.heads, -1}).transpose(1, 2).contiguous(); };
    // No division by the root of the head width: T5 folds it into its weights.
    const Tensor scores = at::matmul(heads(q(u)), heads(k(u)).transpose(2, 3)) + bias_1HTT;
    const Tensor probabilities = at::softmax(scores, -1, at::kFloat).to(x_BTD.scalar_type());
    const Tensor attended = at::matmul(probabilities, heads(v(u)));
    const Tensor x = x_BTD + o(attended.transpose(1, 2).flatten(2));
    const Tensor h = rms_norm(x, mlp_norm, c.epsilon);
    return x + wo(wi_1 ? kernels::gelu_tanh(wi_0(h)) * (*wi_1)(h) : at::relu(wi_0(h)));
  }
};

T5Config t5_config(const weights::TensorIndex& index) {
  T5Config config;
  const auto shape = [&](const char* name) {
    auto s = index.shape(name);
    base::check(s.size() == 2, ErrorKind::corrupt_file, "{}: tensor {} has shape {}, expected two dimensions",
                index.where(), name, files::shape_text(s));
    return s;
  };
  config.vocabulary = shape("shared.weight")[0];
  config.width = shape("shared.weight")[1];
  config.layers = index.count("encoder.block.");
  config.inner_width = shape("encoder.block.0.layer.0.SelfAttention.q.weight")[0];
  config.buckets = shape("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")[0];
  config.heads = shape("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")[1];
  config.gated = index.has("encoder.block.0.layer.1.DenseReluDense.wi_0.weight");
  config.mlp_width = shape(config.gated ? "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
                                        : "encoder.block.0.layer.1.DenseReluDense.wi.weight")[0];
  if (index.config.is_object()) {
    config.max_distance = index.config.value("relative_attention_max_distance", config.max_distance);
    config.epsilon = index.config.value("layer_norm_epsilon", config.epsilon);
  }
  base::check(config.heads > 0 && config.inner_width % config.heads == 0 && config.buckets >= 4 &&
                  config.max_distance > config.buckets / 4,
              ErrorKind::corrupt_file, "{}: T5 with {} heads, attention width {} and {} position buckets",
              index.where(), config.heads, config.inner_width, config.buckets);
  return config;
}

T5Encoder::T5Encoder(const weights::TensorIndex& index, weights::LoadOptions options)
    : T5Encoder(t5_config(index), Scope(index, options)) {}

T5Encoder::T5Encoder(const T5Config& config, const Scope& root) : config_(config), dtype_(root.options().dtype) {
  shared_ = root.tensor("shared.weight", {config_.vocabulary, config_.width});
  relative_attention_bias_ = root.tensor("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                                         {config_.buckets, config_.heads});
  for (int i = 0; i < config_.layers; ++i) layers_.emplace_back(root / "encoder.block" / i, config_);
  final_norm_ = root.tensor("encoder.final_layer_norm.weight", {config_.width});
  root.finish();
}

T5Encoder::~T5Encoder() = default;
T5Encoder::T5Encoder(T5Encoder&&) noexcept = default;

Tensor T5Encoder::position_bias(int64_t tokens) const {
  const Tensor buckets = at::empty({tokens, tokens}, at::TensorOptions().dtype(at::kLong));
  auto* value = buckets.mutable_data_ptr<int64_t>();
  for (int64_t query = 0; query < tokens; ++query)
    for (int64_t key = 0; key < tokens; ++key) *value++ = bucket(key - query, config_.buckets, config_.max_distance);
  return at::embedding(relative_attention_bias_, buckets.to(shared_.device()))
      .to(dtype_)
      .permute({2, 0, 1})
      .unsqueeze(0);  // [1, H, T, T]
}

Tensor T5Encoder::encode(const Tensor& ids_BT, const std::function<void(int)>& on_layer) const {
  base::check(ids_BT.lt(config_.vocabulary).all().item<bool>(), ErrorKind::bad_input,
              "the tokenizer makes ids up to {}, T5's vocabulary has {}; tokenizer and model do not belong together",
              ids_BT.max().item<int64_t>(), config_.vocabulary);
  const Tensor bias_1HTT = position_bias(ids_BT.size(1));
  Tensor x_BTD = at::embedding(shared_, ids_BT.to(shared_.device())).to(dtype_);
  for (size_t i = 0; i < layers_.size(); ++i) {
    x_BTD = layers_[i](x_BTD, bias_1HTT, config_);
    if (on_layer) on_layer(static_cast<int>(i) + 1);
  }
  return rms_norm(x_BTD, final_norm_, config_.epsilon);
}

}  // namespace calotype::text
