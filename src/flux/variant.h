// What differs between published FLUX.1 checkpoints, and the sizes of one, read from its tensors.
//
//   TransformerConfig config = transformer_config(index);
//   const Variant& variant = variant_of(config);          // dev: 28 steps, guidance 3.5, 512 text tokens
//
// Pure data and functions.
#pragma once

#include <string_view>
#include <vector>

#include "weights/tensor_index.h"

namespace calotype::flux {

/// Sizes of a transformer; any depth, width and head size will do.
struct TransformerConfig {
  int64_t in_channels = 64;  ///< numbers per input token: 4 · latent channels, more for models with picture conditions
  int64_t out_channels = 64;  ///< numbers per output token: 4 · latent channels
  int64_t width = 3072;
  int64_t head_width = 128;
  int64_t mlp_width = 12288;
  int64_t text_width = 4096;   ///< of the T5 encoder
  int64_t pooled_width = 768;  ///< of the CLIP encoder
  int64_t time_width = 256;    ///< of the sinusoidal embedding
  int double_blocks = 19, single_blocks = 38;
  std::vector<int64_t> axes = {16, 56, 56};  ///< rotary widths of the three position components, sum = head_width
  bool guidance = true;

  int64_t heads() const { return width / head_width; }
};

/// Reads the sizes. Axes come from the configuration beside the file ("axes_dims_rope") when there is one; tensors do
/// not show them, so else they follow the published model: an eighth of the head, the rest in two halves, all even.
/// Errors: corrupt_file for tensors that contradict each other.
TransformerConfig transformer_config(const weights::TensorIndex& index);

/// The axes rule above: 128 → {16, 56, 56}, 32 → {4, 14, 14}.
std::vector<int64_t> default_axes(int64_t head_width);

/// A published kind of checkpoint: what the tensors cannot say.
struct Variant {
  std::string_view name;
  bool guidance;          ///< has a guidance embedding
  int64_t input_factor;   ///< in_channels / out_channels; above 1 a picture condition is needed
  bool shifted_schedule;  ///< timesteps move towards noise with the picture's size
  int steps;
  double guidance_scale;
  int64_t text_tokens;
};

/// The row that fits; never fails, unknown shapes count as the nearest of schnell and dev.
const Variant& variant_of(const TransformerConfig& config);

}  // namespace calotype::flux
