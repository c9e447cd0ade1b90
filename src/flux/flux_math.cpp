#include "flux/flux_math.h"

#include <ATen/ATen.h>

#include <cmath>

namespace calotype::flux {

Tensor time_embedding(const Tensor& times_B, int64_t width, at::ScalarType dtype) {
  const int64_t half = width / 2;
  const auto options = times_B.options().dtype(at::kFloat);
  const Tensor exponents = at::arange(half, options) * -std::log(10000.0) / half;
  const Tensor angles = times_B.to(at::kFloat).unsqueeze(1) * exponents.exp();
  return at::cat({angles.cos(), angles.sin()}, 1).to(dtype);
}

RotaryTable rotary_table(const Tensor& positions_N3, const std::vector<int64_t>& axes) {
  std::vector<Tensor> angles;
  for (size_t axis = 0; axis < axes.size(); ++axis) {
    const Tensor exponents = at::arange(0, axes[axis], 2, positions_N3.options()) / static_cast<double>(axes[axis]);
    const Tensor frequencies = at::pow(10000.0, exponents).reciprocal();
    angles.push_back(positions_N3.select(1, static_cast<int64_t>(axis)).unsqueeze(1) * frequencies);
  }
  const Tensor all = at::cat(angles, 1);
  return {all.cos().to(at::kFloat), all.sin().to(at::kFloat)};
}

}  // namespace calotype::flux
