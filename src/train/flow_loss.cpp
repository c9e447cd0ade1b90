#include "train/flow_loss.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <array>
#include <cmath>
#include <utility>

namespace calotype::train {
namespace {

constexpr std::array<std::pair<std::string_view, Timesteps>, 3> kTimesteps = {
    {{"sigmoid", Timesteps::sigmoid}, {"flux-shift", Timesteps::flux_shift}, {"uniform", Timesteps::uniform}}};

/// splitmix64: neighbouring numbers become unrelated seeds. PyTorch's CPU generator uses the low 32 bits.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

std::optional<Timesteps> timesteps_from_name(std::string_view text, const flux::ScheduleConfig& schedule) {
  if (text == "auto")
    return schedule.shifted && schedule.base_shift == schedule.max_shift ? Timesteps::flux_shift : Timesteps::sigmoid;
  for (const auto& [word, value] : kTimesteps)
    if (word == text) return value;
  return std::nullopt;
}

at::Generator generator(uint64_t seed, Stream stream, uint64_t index) {
  return at::detail::createCPUGenerator(mix(mix(mix(seed) + static_cast<uint64_t>(stream)) + index));
}

Tensor draw_sigmas(Timesteps timesteps, int64_t batch, int64_t image_tokens, const flux::ScheduleConfig& schedule,
                   at::Generator& random) {
  const auto f32 = at::TensorOptions().dtype(at::kFloat);
  if (timesteps == Timesteps::uniform) return at::rand({batch}, random, f32).clamp(1e-4, 1 - 1e-4);
  const Tensor sigma_B = at::sigmoid(at::randn({batch}, random, f32));
  if (timesteps == Timesteps::sigmoid) return sigma_B;
  const double shift = flux::shift_factor(schedule, image_tokens);
  return shift * sigma_B / (1 + (shift - 1) * sigma_B);
}

Noised add_noise(const Tensor& clean_BChw, const Tensor& noise_BChw, const Tensor& sigma_B) {
  const Tensor sigma_B111 = sigma_B.to(clean_BChw.device()).view({-1, 1, 1, 1});
  return {.x_BIC = flux::pack((1 - sigma_B111) * clean_BChw + sigma_B111 * noise_BChw),
          .velocity_BIC = flux::pack(noise_BChw - clean_BChw),
          .sigma_B = sigma_B};
}

Tensor guided(const Tensor& with_prompt, const Tensor& without, double guidance) {
  return without + guidance * (with_prompt - without);
}

Tensor flow_loss(const Tensor& prediction_BIC, const Noised& noised, const Tensor& mask_B1hw) {
  const Tensor squares = (prediction_BIC.to(at::kFloat) - noised.velocity_BIC).square();
  if (!mask_B1hw.defined()) return squares.mean();
  const int64_t channels = squares.size(-1) / 4;
  const Tensor weight = flux::pack(mask_B1hw.expand({-1, channels, -1, -1}));
  return (squares * (weight / mask_B1hw.mean().clamp_min(1e-6))).mean();
}

}  // namespace calotype::train
