#include "train/gradients.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

namespace calotype::train {
namespace {

std::vector<at::Tensor> gradients(const Parameters& parameters) {
  std::vector<at::Tensor> out;
  for (const Parameter& p : parameters)
    if (p.value.grad().defined()) out.push_back(p.value.grad());
  return out;
}

}  // namespace

double gradient_norm(const Parameters& parameters) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> all = gradients(parameters);
  if (all.empty()) return 0;
  return at::stack(at::_foreach_norm(all)).to(at::kDouble).square().sum().sqrt().item<double>();
}

double clip_gradients(const Parameters& parameters, double max_norm) {
  const double norm = gradient_norm(parameters);
  const double factor = max_norm / (norm + 1e-6);
  if (!std::isfinite(norm) || factor >= 1) return norm;
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> all = gradients(parameters);
  at::_foreach_mul_(all, factor);
  return norm;
}

std::optional<std::string> first_non_finite(const Parameters& parameters) {
  const at::NoGradGuard no_grad;
  for (const Parameter& p : parameters)
    if (p.value.grad().defined() && !p.value.grad().isfinite().all().item<bool>()) return p.name;
  return std::nullopt;
}

}  // namespace calotype::train
