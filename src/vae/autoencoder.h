// The autoencoder between pictures and latents: eight times smaller each way, 16 channels in the published model.
//
//   Autoencoder vae(index, {.dtype = at::kBFloat16});
//   Tensor picture_B3HW = vae.decode(latents_BChw);       // −1 … 1, not clamped
//
// Shapes: B batch, C latent channels, h = H / factor. Tensors pass in the model's type. Immutable and thread-safe.
// Source: BFL modules/autoencoder.py, diffusers models/autoencoders (vae.py, autoencoder_kl.py).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "base/cancel.h"
#include "weights/scope.h"

namespace calotype::vae {

using at::Tensor;

/// Sizes, read from the tensors; what they cannot show comes from the configuration beside them or is FLUX.1's.
struct AutoencoderConfig {
  int64_t latent_channels = 16;
  std::vector<int64_t> encoder_channels, decoder_channels;  ///< per level, full resolution first; empty: part is absent
  int encoder_blocks = 2, decoder_blocks = 3;               ///< residual blocks per level
  int64_t groups = 32;
  double scaling = 0.3611, shift = 0.1159;
  int64_t sample_size = 1024;  ///< side of the pictures that the model was made for, pixels

  /// Pixels per latent side.
  int64_t factor() const;
};

/// Errors: corrupt_file for tensors that contradict each other.
AutoencoderConfig autoencoder_config(const weights::TensorIndex& index);

/// Square tiles with a halo of neighbours that is computed and thrown away; sides in latents.
struct Tiling {
  int64_t tile = 128;  ///< with the halo on both sides
  int64_t halo = 16;   ///< the growing part of the published decoder sees about 14 latents far
};

struct Posterior {
  Tensor mean_BChw, logvar_BChw;  ///< log-variance within −30 … 20
};

class Autoencoder {
 public:
  enum class Parts { decoder, both };
  /// Errors: one corrupt_file Error naming all missing and mis-shaped tensors.
  Autoencoder(const weights::TensorIndex& index, weights::LoadOptions options, Parts parts = Parts::decoder);
  /// Of given sizes. Errors: one corrupt_file Error naming all missing tensors.
  Autoencoder(const AutoencoderConfig& config, const weights::Scope& root, Parts parts);
  ~Autoencoder();
  Autoencoder(Autoencoder&&) noexcept;

  const AutoencoderConfig& config() const { return config_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  /// Latents as the transformer uses them (scaled, shifted) → picture [B, 3, H, W].
  Tensor decode(const Tensor& latents_BChw) const;
  /// The same in tiles, for little memory and about three times the time (TileStatistics); agrees to 40 dB or better.
  Tensor decode_tiled(const Tensor& latents_BChw, Tiling tiling, const base::CancelToken* cancel = nullptr) const;

  /// Picture in −1 … 1, sides multiples of factor() → distribution of unscaled latents.
  Posterior encode(const Tensor& picture_B3HW) const;
  /// Unscaled latents (a mean or sample of the posterior) → latents for the transformer.
  Tensor scaled(const Tensor& latents_BChw) const;

  /// Bytes that decode() needs beyond the weights, and decode_tiled() per tile, for `pixels` at once.
  uint64_t decode_bytes(int64_t pixels) const;

 private:
  struct Encoder;
  struct Decoder;
  AutoencoderConfig config_;
  at::ScalarType dtype_;
  at::Device device_;
  bool training_ = false;
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace calotype::vae
