// The objective of FLUX.1: noise a clean latent to a level, predict the velocity, compare.
//
//   const Noised noised = add_noise(clean_BChw, noise_BChw, draw_sigmas(Timesteps::sigmoid, {.batch = 4}, generator));
//   const Tensor loss = flow_loss(model.forward(noised.x_BIC, cond, noised.sigma_B, size), noised);
//
// Shapes: B batch, C latent channels, h and w latent sides, I = h/2 · w/2 tokens. Pure functions but for the generator.
// Sources: Esser et al. 2403.03206; diffusers train_dreambooth_lora_flux.py; ostris/ai-toolkit SDTrainer.py.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

#include "flux/latents.h"
#include "flux/schedule.h"

namespace calotype::train {

using at::Tensor;

/// How noise levels are drawn.
enum class Timesteps {
  sigmoid,     ///< sigmoid of a normal number: the middle most often, at every size
  flux_shift,  ///< the same, moved towards noise as sampling does for larger pictures
  uniform,     ///< evenly in (0, 1)
};
/// "auto" is flux_shift for a model that moves pictures of every size alike towards noise, as the one in the box, and
/// sigmoid for others, as trainers of FLUX.1 do.
std::optional<Timesteps> timesteps_from_name(std::string_view name, const flux::ScheduleConfig& schedule);

/// A generator whose numbers are a function of (seed, stream, index) alone, so that a run can go on at any step without
/// its state having been kept. Streams are the uses that must not share numbers.
enum class Stream : uint64_t { order, step, initial, validation };
at::Generator generator(uint64_t seed, Stream stream, uint64_t index);

/// f32 [batch], each in (0, 1).
Tensor draw_sigmas(Timesteps timesteps, int64_t batch, int64_t image_tokens, const flux::ScheduleConfig& schedule,
                   at::Generator& random);

struct Noised {
  Tensor x_BIC;         ///< packed (1 − σ)·clean + σ·noise, f32
  Tensor velocity_BIC;  ///< packed noise − clean, f32: what the model should say
  Tensor sigma_B;       ///< f32
};
/// clean: latents as the transformer sees them (scaled), f32.
Noised add_noise(const Tensor& clean_BChw, const Tensor& noise_BChw, const Tensor& sigma_B);

/// Classifier-free guidance (Ho & Salimans 2207.12598): what the model says for a prompt, moved away from what it says
/// for none; guidance 1 changes nothing.
Tensor guided(const Tensor& with_prompt, const Tensor& without, double guidance);

/// Mean squared error in f32, over everything; with a mask [B, 1, h, w] (≥ 0) weighted by it divided by its mean, so
/// that the loss keeps its size (ai-toolkit).
Tensor flow_loss(const Tensor& prediction_BIC, const Noised& noised, const Tensor& mask_B1hw = {});

}  // namespace calotype::train
