// Latent pictures as the transformer sees them: 2×2 patches as tokens, their positions, and the noise they start from.
//
//   Tensor x_BLC = pack(noise(seed, {.channels = 16, .height = 128, .width = 128}));
//
// Shapes: B batch, C latent channels, h and w latent height and width (even), L = h/2 · w/2 tokens. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace calotype::flux {

using at::Tensor;

struct LatentSize {
  int64_t channels = 16, height = 0, width = 0;
  int64_t tokens() const { return height / 2 * (width / 2); }
};

/// [B, C, h, w] → [B, L, 4C]; token (row, column), number c·4 + y·2 + x. BFL sampling.py prepare.
Tensor pack(const Tensor& latent_BChw);
/// The inverse of pack.
Tensor unpack(const Tensor& tokens_BLC, LatentSize size);

/// Positions of the text tokens (all zero) followed by those of the picture (0, row, column): f64 [T + L, 3].
Tensor positions(int64_t text_tokens, LatentSize size);

/// Which program's picture the same seed shall give.
enum class NoiseStream {
  torch,  ///< PyTorch's CPU generator in f32, rounded to the compute type: diffusers today
  bfl,    ///< PyTorch's bf16 CPU stream as it was until 2025: BFL's own code and diffusers of that time
  comfy,  ///< f32, one draw for the whole batch from the first seed: ComfyUI
};
std::optional<NoiseStream> noise_stream(std::string_view name);

/// Standard normal numbers [count, C, h, w] in f32. Picture i of `torch` and `bfl` is drawn from seed + i on its own,
/// so it does not depend on the batch. `bfl` follows reference notes §5.4 of PyTorch's DistributionTemplates.h before
/// PR 179834.
Tensor noise(NoiseStream stream, uint64_t seed, int64_t count, LatentSize size);

}  // namespace calotype::flux
