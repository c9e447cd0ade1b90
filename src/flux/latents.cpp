#include "flux/latents.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/MT19937RNGEngine.h>

#include <cmath>
#include <numbers>

namespace calotype::flux {
namespace {

at::Generator generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

Tensor torch_noise(uint64_t seed, int64_t count, LatentSize size) {
  return at::randn({count, size.channels, size.height, size.width}, generator(seed),
                   at::TensorOptions().dtype(at::kFloat));
}

float round_bf16(double value) { return static_cast<float>(c10::BFloat16(static_cast<float>(value))); }

/// Box–Muller over groups of 16 numbers with every intermediate in bf16 and eight random bits per number, which is what
/// torch.randn(dtype=bfloat16) did on the CPU; larger steps than f32's are the price the old pictures were made at.
void legacy_group(float* group) {
  for (int i = 0; i < 8; ++i) {
    const float u1 = round_bf16(1.0f - group[i]);
    const float u2 = group[i + 8];
    const float radius = round_bf16(std::sqrt(round_bf16(-2.0f * round_bf16(std::log(u1)))));
    const float theta = round_bf16(2.0 * std::numbers::pi * u2);
    group[i] = round_bf16(radius * round_bf16(std::cos(theta)));
    group[i + 8] = round_bf16(radius * round_bf16(std::sin(theta)));
  }
}

Tensor legacy_bf16_noise(uint64_t seed, LatentSize size) {
  const int64_t n = size.channels * size.height * size.width;
  const Tensor out = at::empty({1, size.channels, size.height, size.width}, at::TensorOptions().dtype(at::kFloat));
  auto* values = out.mutable_data_ptr<float>();
  at::mt19937 engine(seed);
  const auto uniform = [&] { return static_cast<float>(engine() & 0xFF) / 256.0f; };
  for (int64_t i = 0; i < n; ++i) values[i] = uniform();
  for (int64_t i = 0; i + 16 <= n; i += 16) legacy_group(values + i);
  if (n % 16 && n >= 16) {  // the last group is redrawn and overlaps the one before it
    for (int64_t i = n - 16; i < n; ++i) values[i] = uniform();
    legacy_group(values + n - 16);
  }
  return out;
}

}  // namespace

Tensor pack(const Tensor& latent_BChw) {
  const Tensor patches = latent_BChw.unflatten(3, {-1, 2}).unflatten(2, {-1, 2});  // B C h/2 2 w/2 2
  return patches.permute({0, 2, 4, 1, 3, 5}).flatten(3).flatten(1, 2);
}

Tensor unpack(const Tensor& tokens_BLC, LatentSize size) {
  const Tensor patches = tokens_BLC.view({tokens_BLC.size(0), size.height / 2, size.width / 2, size.channels, 2, 2});
  return patches.permute({0, 3, 1, 4, 2, 5}).reshape({tokens_BLC.size(0), size.channels, size.height, size.width});
}

Tensor positions(int64_t text_tokens, LatentSize size) {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const int64_t rows = size.height / 2, columns = size.width / 2;
  const Tensor picture = at::zeros({rows, columns, 3}, options);
  picture.select(2, 1).copy_(at::arange(rows, options).unsqueeze(1).expand({rows, columns}));
  picture.select(2, 2).copy_(at::arange(columns, options).unsqueeze(0).expand({rows, columns}));
  return at::cat({at::zeros({text_tokens, 3}, options), picture.flatten(0, 1)});
}

std::optional<NoiseStream> noise_stream(std::string_view name) {
  if (name == "torch") return NoiseStream::torch;
  if (name == "bfl") return NoiseStream::bfl;
  if (name == "comfy") return NoiseStream::comfy;
  return std::nullopt;
}

Tensor noise(NoiseStream stream, uint64_t seed, int64_t count, LatentSize size) {
  if (stream == NoiseStream::comfy) return torch_noise(seed, count, size);
  std::vector<Tensor> pictures;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t own = seed + static_cast<uint64_t>(i);
    pictures.push_back(stream == NoiseStream::torch ? torch_noise(own, 1, size) : legacy_bf16_noise(own, size));
  }
  return at::cat(pictures);
}

}  // namespace calotype::flux
