#include "flux/sampler.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "base/probe.h"

namespace calotype::flux {
namespace {

bool all_finite(const Tensor& t) {
  return std::isfinite(t.sum(at::kFloat).item<float>()) || t.isfinite().all().item<bool>();
}

/// Repeats the failed forward under observation to name the first place; costs nothing while all is well.
[[noreturn]] void fail_not_finite(const std::function<Tensor()>& forward, int step, int steps) {
  std::string place = "the output";
  {
    bool found = false;
    const base::ProbeScope watch([&](std::string_view name, const Tensor& value) {
      if (found || all_finite(value)) return;
      place = name;
      found = true;
    });
    forward();
  }
  base::fail(
      base::ErrorKind::internal,
      "step {} of {}: {} is not finite (NaN or infinity); no picture was written. Check the model with `calotype "
      "inspect --check`, or try --dtype f32",
      step, steps, place);
}

}  // namespace

Tensor Kept::put_back(const Tensor& x_BLC, float sigma) const {
  const Tensor start_BLC = (1 - sigma) * clean_BLC + sigma * noise_BLC;
  return (drawn_BLC * x_BLC.to(at::kFloat) + (1 - drawn_BLC) * start_BLC).to(x_BLC.scalar_type());
}

Tensor sample(const FluxTransformer& model, Tensor x_BLC, LatentSize size, const SampleOptions& options) {
  const int steps = static_cast<int>(options.sigmas.size()) - 1;
  for (int i = 0; i < steps; ++i) {
    if (options.cancel) options.cancel->throw_if_requested();
    const float sigma = options.sigmas[static_cast<size_t>(i)], next = options.sigmas[static_cast<size_t>(i) + 1];
    const auto velocity = [&] {
      const Tensor v = model.forward(x_BLC, options.positive, sigma, size);
      if (!options.negative) return v;
      const Tensor v_negative = model.forward(x_BLC, *options.negative, sigma, size);
      return v_negative + options.true_cfg * (v - v_negative);
    };
    const Tensor v_BLC = velocity();
    if (!all_finite(v_BLC)) fail_not_finite(velocity, i + 1, steps);
    Tensor clean_BLC = x_BLC.to(at::kFloat) - sigma * v_BLC.to(at::kFloat);
    // As in the reference, the step size is rounded to the compute type (a tensor without dimensions is), and so is its
    // product with v, before the f32 sum.
    const Tensor dt = at::scalar_tensor(next - sigma, x_BLC.options().dtype(at::kFloat));
    x_BLC = (x_BLC.to(at::kFloat) + dt * v_BLC).to(x_BLC.scalar_type());
    if (options.kept) {
      x_BLC = options.kept->put_back(x_BLC, next);
      clean_BLC = options.kept->put_back(clean_BLC, 0);
    }
    if (options.on_step) options.on_step({.step = i + 1, .steps = steps, .latents_BLC = x_BLC, .clean_BLC = clean_BLC});
  }
  return x_BLC;
}

}  // namespace calotype::flux
