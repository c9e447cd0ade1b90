// From noise to latents: one Euler loop for every model, with hooks for progress, previews and cancelling.
//
//   Tensor latents_BLC = sample(model, start_BLC, size, {.sigmas = schedule(config, 28, size.tokens()), .positive =
//   cond});
//
// Thread-safe as far as the callback is. Source: diffusers FluxPipeline and FlowMatchEulerDiscreteScheduler.step.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "base/cancel.h"
#include "flux/flux_transformer.h"

namespace calotype::flux {

struct StepReport {
  int step = 0, steps = 0;    ///< step counts finished steps, 1 … steps
  const Tensor& latents_BLC;  ///< after this step
  const Tensor& clean_BLC;    ///< the picture as this step foresees it, for previews
};

/// What stays of a start picture while the rest is drawn anew. Source: diffusers FluxInpaintPipeline.__call__.
struct Kept {
  Tensor clean_BLC;  ///< the start's latents, f32, as are the others; B may be 1
  Tensor noise_BLC;  ///< of the pictures
  Tensor drawn_BLC;  ///< 1 for what is drawn anew, 0 for what stays

  /// The latents of level sigma with what stays put back.
  Tensor put_back(const Tensor& x_BLC, float sigma) const;
};

struct SampleOptions {
  std::vector<float> sigmas;  ///< falling, the last one 0
  Conditioning positive;
  std::optional<Conditioning> negative;  ///< true classifier-free guidance: two passes a step
  double true_cfg = 1.0;                 ///< v = negative + true_cfg · (positive − negative)
  std::optional<Kept> kept;
  std::function<void(const StepReport&)> on_step;
  const base::CancelToken* cancel = nullptr;
};

/// start [B, L, C] in the model's type, noise of level sigmas[0] → latents at level 0. Errors: canceled; internal
/// naming step and block when numbers stop being finite.
Tensor sample(const FluxTransformer& model, Tensor start_BLC, LatentSize size, const SampleOptions& options);

}  // namespace calotype::flux
