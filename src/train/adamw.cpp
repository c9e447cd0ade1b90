#include "train/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace calotype::train {

AdamW::AdamW(const OptimizerOptions& options, const Parameters& parameters)
    : options_(options), parameters_(parameters) {
  for (const Parameter& p : parameters_) {
    steps_.push_back(at::zeros({}, p.value.options()));
    means_.push_back(at::zeros_like(p.value.detach()));
    squares_.push_back(at::zeros_like(p.value.detach()));
  }
}

void AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> values, gradients, means, squares, steps;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& gradient = parameters_[i].value.grad();
    if (!gradient.defined()) continue;
    values.push_back(parameters_[i].value);
    gradients.push_back(gradient.contiguous());  // the fused kernel walks plain memory
    means.push_back(means_[i]);
    squares.push_back(squares_[i]);
    steps.push_back(steps_[i]);
  }
  if (values.empty()) return;
  at::_foreach_add_(steps, 1);
  at::_fused_adamw_(values, gradients, means, squares, {}, steps, learning_rate, options_.beta1, options_.beta2,
                    options_.weight_decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
}

OptimizerState AdamW::state() const {
  OptimizerState out;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const std::string& name = parameters_[i].name;
    out[name + ".step"] = steps_[i];
    out[name + ".exp_avg"] = means_[i];
    out[name + ".exp_avg_sq"] = squares_[i];
  }
  return out;
}

}  // namespace calotype::train
