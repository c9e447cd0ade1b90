// The CLIP text model: token ids in, the pooled vector that FLUX.1 adds to its time embedding out.
//
//   ClipEncoder clip(index, {.dtype = at::kBFloat16});
//   Tensor pooled_BD = clip.encode(ids_BL).pooled_BD;
//
// Shapes: B batch, L tokens, D width. Immutable and thread-safe. Source: transformers modeling_clip.py CLIPTextModel.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "weights/linear.h"

namespace calotype::text {

using at::Tensor;

struct ClipConfig {
  int64_t vocabulary = 49408, positions = 77, width = 768, mlp_width = 3072, heads = 12;
  int layers = 12;
  double epsilon = 1e-5;
  enum class Activation { quick_gelu, gelu } activation = Activation::quick_gelu;
  int64_t eos = 2;  ///< 2 (old configurations) pools at the largest id, any other value at the first such id
};

/// Sizes from the tensors; heads, activation and eos from the configuration beside them, else as in CLIP-L (64 numbers
/// a head). Errors: corrupt_file.
ClipConfig clip_config(const weights::TensorIndex& index);

class ClipEncoder {
 public:
  ClipEncoder(const weights::TensorIndex& index, weights::LoadOptions options);
  /// Of given sizes. Errors: one corrupt_file Error naming all missing tensors.
  ClipEncoder(const ClipConfig& config, const weights::Scope& root);
  ~ClipEncoder();
  ClipEncoder(ClipEncoder&&) noexcept;

  struct Output {
    Tensor last_hidden_BLD, pooled_BD;
  };
  /// ids: i64 [B, L], L ≤ positions, each below vocabulary (bad_input otherwise).
  Output encode(const Tensor& ids_BL) const;

  const ClipConfig& config() const { return config_; }

 private:
  struct LayerNorm;
  struct Layer;
  ClipConfig config_;
  at::ScalarType dtype_;
  Tensor token_embedding_, position_embedding_;
  std::vector<Layer> layers_;
  std::unique_ptr<LayerNorm> final_norm_;
};

}  // namespace calotype::text
