// The gradients of all trained tensors taken together: their norm, and keeping it in bounds.
//
//   const double norm = clip_gradients(parameters, 1.0);
//   if (!std::isfinite(norm)) skip(first_non_finite(parameters));
//
// One thread at a time. Tensors without a gradient count as zero.
#pragma once

#include "train/optimizer.h"

namespace calotype::train {

/// Euclidean norm over all gradients; squares of tensors are added in f64. NaN or infinite when a gradient is, or when
/// the norm of one tensor is beyond f32. Waits once for the device.
double gradient_norm(const Parameters& parameters);

/// Scales all gradients in place by max_norm / (norm + 1e-6) when that is below 1, as
/// torch.nn.utils.clip_grad_norm_ does. Returns the norm before; gradients whose norm is not finite stay as they are.
double clip_gradients(const Parameters& parameters, double max_norm);

/// Name of the first parameter whose gradient has a NaN or an infinity.
std::optional<std::string> first_non_finite(const Parameters& parameters);

}  // namespace calotype::train
