#include "train/muon.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/cpu_features.h"

namespace calotype::train {
namespace {

Parameters no_matrices(const Parameters& parameters) {
  Parameters out;
  for (const Parameter& p : parameters)
    if (!p.matrix) out.push_back(p);
  return out;
}

}  // namespace

at::Tensor orthogonalize(const at::Tensor& matrix, at::ScalarType type) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315, kEpsilon = 1e-7;
  constexpr int kSteps = 5;
  const bool tall = matrix.size(0) > matrix.size(1);  // the smaller of the two Gram matrices is enough
  at::Tensor x = tall ? matrix.to(type).t() : matrix.to(type);
  x = x / x.norm().clamp_min(kEpsilon);
  for (int i = 0; i < kSteps; ++i) {
    const at::Tensor gram = at::mm(x, x.t());
    x = at::addmm(x, at::addmm(gram, gram, gram, kB, kC), x, kA, 1);
  }
  return tall ? x.t() : x;
}

Muon::Muon(const OptimizerOptions& options, const Parameters& parameters)
    : options_(options), others_(options, no_matrices(parameters)) {
  for (const Parameter& p : parameters) {
    if (!p.matrix) continue;
    matrices_.push_back({p, at::zeros_like(p.value.detach())});
    const bool native = !p.value.is_cpu() || base::cpu_multiplies_bf16();
    type_ = options.muon_type.value_or(native ? at::kBFloat16 : at::kFloat);
  }
}

void Muon::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  others_.step(learning_rate);
  const double rate = learning_rate * options_.muon_rate;
  for (const Matrix& matrix : matrices_) {
    at::Tensor value = matrix.parameter.value;
    const at::Tensor& gradient = value.grad();
    if (!gradient.defined()) continue;
    matrix.momentum.lerp_(gradient, 1 - options_.muon_momentum);
    const at::Tensor direction = gradient.lerp(matrix.momentum, options_.muon_momentum).flatten(1);
    value.mul_(1 - rate * options_.weight_decay);
    const at::Tensor rows = value.view({direction.size(0), direction.size(1)});
    const std::vector<int64_t> whole = {rows.size(0)};
    int64_t first = 0;
    for (const int64_t count : matrix.parameter.row_parts.empty() ? whole : matrix.parameter.row_parts) {
      const double shape = static_cast<double>(count) / static_cast<double>(rows.size(1));
      rows.narrow(0, first, count)
          .add_(orthogonalize(direction.narrow(0, first, count), type_), -rate * std::sqrt(std::max(1.0, shape)));
      first += count;
    }
  }
}

OptimizerState Muon::state() const {
  OptimizerState out = others_.state();
  for (const Matrix& matrix : matrices_) out[matrix.parameter.name + ".momentum_buffer"] = matrix.momentum;
  return out;
}

}  // namespace calotype::train
