// The FLUX.1 transformer: noisy picture tokens, text and time in; velocity out.
//
//   FluxTransformer model(index, {.dtype = at::kBFloat16});
//   Tensor v_BIC = model.forward(x_BIC, conditioning, 0.75f, size);
//
// Shapes: B batch, T text tokens, I image tokens, C token channels, D width. Immutable and thread-safe but for its
// adapter slots. Records gradients for training (LoadOptions).
// Source: black-forest-labs/flux src/flux/model.py; time and guidance are rounded as diffusers rounds them.
#pragma once

#include <optional>

#include "flux/flux_blocks.h"
#include "flux/latents.h"

namespace calotype::flux {

/// What the picture shall show, encoded.
struct Conditioning {
  Tensor text_BTE;        ///< T5 states [B, T, text_width]
  Tensor pooled_BP;       ///< CLIP's pooled vector [B, pooled_width]
  double guidance = 3.5;  ///< ignored by models without guidance embedding
};

/// Two linear layers with silu between, for time, guidance and pooled text.
struct MlpEmbedder {
  Linear in_layer, out_layer;
  MlpEmbedder(const Scope& scope, int64_t in, int64_t width);
  Tensor operator()(const Tensor& x_BC) const;
};

class FluxTransformer {
 public:
  /// Errors: as transformer_config, and one corrupt_file Error naming all missing and mis-shaped tensors.
  FluxTransformer(const weights::TensorIndex& index, weights::LoadOptions options);
  /// Of given sizes, from a scope that the caller looks into afterwards (Scope::asked, Scope::problems).
  FluxTransformer(const TransformerConfig& config, const Scope& scope);

  const TransformerConfig& config() const { return config_; }
  at::ScalarType dtype() const { return dtype_; }

  const weights::AdapterSlots& adapter_slots() const { return scope_.adapter_slots(); }

  /// x [B, I, in_channels] at noise levels sigma [B] (f32, in (0, 1]) → velocity [B, I, out_channels] (dx/dsigma).
  Tensor forward(const Tensor& x_BIC, const Conditioning& cond, const Tensor& sigma_B, LatentSize size) const;
  /// The same with one noise level for the whole batch.
  Tensor forward(const Tensor& x_BIC, const Conditioning& cond, float sigma, LatentSize size) const;

 private:
  Tensor embed_vector(const Conditioning& cond, const Tensor& sigma_B) const;

  TransformerConfig config_;
  at::ScalarType dtype_;
  Scope scope_;
  Linear img_in_, txt_in_;
  MlpEmbedder time_in_, vector_in_;
  std::optional<MlpEmbedder> guidance_in_;
  std::vector<DoubleBlock> double_blocks_;
  std::vector<SingleBlock> single_blocks_;
  ModulationLayer final_modulation_;
  Linear final_linear_;
};

}  // namespace calotype::flux
