#include "train/prodigy.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

namespace calotype::train {
namespace {

at::Tensor number(double value) { return at::full({}, value, at::kDouble); }

/// One wait for the device instead of one per tensor.
double sum(const std::vector<at::Tensor>& scalars) { return at::stack(scalars).to(at::kDouble).sum().item<double>(); }

}  // namespace

Prodigy::Prodigy(const OptimizerOptions& options, const Parameters& parameters)
    : options_(options),
      d_(number(options.prodigy_d0)),
      d_max_(number(options.prodigy_d0)),
      numerator_(number(0)),
      count_(at::zeros({}, at::kLong)) {
  for (const Parameter& p : parameters) {
    const at::Tensor value = p.value.detach();
    moments_.push_back({p, at::zeros_like(value), at::zeros_like(value), at::zeros_like(value), value.clone()});
  }
}

void Prodigy::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  const double beta1 = options_.beta1, beta2 = options_.beta2, beta3 = std::sqrt(beta2);
  const double d = d_.item<double>(), relative = d / options_.prodigy_d0;
  const auto next = static_cast<double>(count_.item<int64_t>() + 1);
  const double correction =
      options_.prodigy_bias_correction ? std::sqrt(1 - std::pow(beta2, next)) / (1 - std::pow(beta1, next)) : 1;
  const double rate = d * learning_rate * correction;

  std::vector<const Moments*> used;
  std::vector<at::Tensor> products, sizes;
  for (const Moments& m : moments_) {
    const at::Tensor& value = m.parameter.value;
    const at::Tensor& gradient = value.grad();
    if (!gradient.defined() || learning_rate <= 0) continue;
    used.push_back(&m);
    products.push_back(at::dot(gradient.reshape(-1), (m.start - value).view(-1)));
    m.mean.mul_(beta1).add_(gradient, d * (1 - beta1));
    m.square.mul_(beta2).addcmul_(gradient, gradient, d * d * (1 - beta2));
    m.weighted.mul_(beta3).add_(gradient, relative * (options_.prodigy_safeguard_warmup ? d : rate));
    sizes.push_back(m.weighted.abs().sum());
  }
  if (used.empty()) return;
  const double denominator = sum(sizes);
  if (denominator == 0) return;  // every gradient so far was zero
  estimate(beta3 * numerator_.item<double>() + relative * rate * sum(products), denominator);

  const double epsilon = d_.item<double>() * options_.epsilon;
  for (const Moments* m : used) {
    at::Tensor value = m->parameter.value;
    value.add_(value, -options_.weight_decay * rate);  // the rate may be 1e-6: 1 − that is too coarse in f32
    value.addcdiv_(m->mean, m->square.sqrt().add_(epsilon), -rate);
  }
  count_.add_(1);
}

void Prodigy::estimate(double numerator, double denominator) {
  const double found = options_.prodigy_d_factor * numerator / denominator;
  double d = d_.item<double>();
  if (d == options_.prodigy_d0) d = std::max(d, found);
  const double d_max = std::max(d_max_.item<double>(), found);
  d_.fill_(std::min(d_max, d * options_.prodigy_growth_rate));
  d_max_.fill_(d_max);
  numerator_.fill_(numerator);
}

OptimizerState Prodigy::state() const {
  OptimizerState out = {{"d", d_}, {"d_max", d_max_}, {"d_numerator", numerator_}, {"k", count_}};
  for (const Moments& m : moments_) {
    const std::string& name = m.parameter.name;
    out[name + ".exp_avg"] = m.mean;
    out[name + ".exp_avg_sq"] = m.square;
    out[name + ".s"] = m.weighted;
    out[name + ".p0"] = m.start;
  }
  return out;
}

}  // namespace calotype::train
