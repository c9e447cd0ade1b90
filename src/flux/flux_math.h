// The two formulas that place a token in time and space: sinusoidal time embedding and rotary tables.
//
//   RotaryTable table = rotary_table(positions(512, size), {16, 56, 56});
//
// Pure functions. Sources: BFL modules/layers.py timestep_embedding, math.py rope; diffusers models/embeddings.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/fused_ops.h"

namespace calotype::flux {

using at::Tensor;
using kernels::RotaryTable;

/// f32 [B] (already times 1000) → [B, width]: cosines in the first half, sines in the second, rounded to `dtype`.
Tensor time_embedding(const Tensor& times_B, int64_t width, at::ScalarType dtype);

/// Angles id_a · 10000^(−2k/d_a) for each axis a, computed in f64 as diffusers does, as f32 cosines and sines.
/// positions f64 [N, 3].
RotaryTable rotary_table(const Tensor& positions_N3, const std::vector<int64_t>& axes);

}  // namespace calotype::flux
