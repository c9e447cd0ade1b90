// The T5 encoder: token ids in, the states that FLUX.1's text stream starts from out.
//
//   T5Encoder t5(index, {.dtype = at::kBFloat16});
//   Tensor states_BTD = t5.encode(ids_BT);
//
// Shapes: B batch, T tokens, D width. There is no mask: padding takes part, as in the reference. Immutable and
// thread-safe. Source: transformers modeling_t5.py T5EncoderModel.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "base/cancel.h"
#include "weights/linear.h"

namespace calotype::text {

using at::Tensor;

struct T5Config {
  int64_t vocabulary = 32128, width = 4096, inner_width = 4096, heads = 64, mlp_width = 10240, buckets = 32;
  int64_t max_distance = 128;
  int layers = 24;
  double epsilon = 1e-6;
  bool gated = true;  ///< gelu(wi_0 x) · (wi_1 x); else relu(wi x), T5 1.0
};

/// Sizes from the tensors; relative_attention_max_distance and epsilon from the configuration. Errors: corrupt_file.
T5Config t5_config(const weights::TensorIndex& index);

class T5Encoder {
 public:
  T5Encoder(const weights::TensorIndex& index, weights::LoadOptions options);
  /// Of given sizes. Errors: one corrupt_file Error naming all missing tensors.
  T5Encoder(const T5Config& config, const weights::Scope& root);
  ~T5Encoder();
  T5Encoder(T5Encoder&&) noexcept;

  /// ids: i64 [B, T], each below vocabulary (bad_input otherwise). `on_layer` is called after each layer with its
  /// number.
  Tensor encode(const Tensor& ids_BT, const std::function<void(int layer)>& on_layer = {}) const;

  const T5Config& config() const { return config_; }

 private:
  struct Layer;
  Tensor position_bias(int64_t tokens) const;

  T5Config config_;
  at::ScalarType dtype_;
  Tensor shared_, relative_attention_bias_, final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace calotype::text
