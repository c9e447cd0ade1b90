#include "train/average.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "train/saved_state.h"

namespace calotype::train {

using base::ErrorKind;

Average::Average(const Parameters& parameters, AverageOptions options)
    : options_(options), parameters_(parameters), updates_(at::zeros({}, at::kLong)) {
  base::check(options.decay >= 0 && options.decay < 1, ErrorKind::bad_input,
              "the decay of the average is {}, expected 0 to below 1", options.decay);
  for (const Parameter& p : parameters_) averages_.push_back(p.value.detach().clone());
}

void Average::update() {
  base::check(!swapped_, ErrorKind::internal, "the average is updated while it stands in the model");
  if (averages_.empty()) return;
  const at::NoGradGuard no_grad;
  const auto s = static_cast<double>(updates_.item<int64_t>());
  const double decay = options_.warm_up ? std::min(options_.decay, (1 + s) / (10 + s)) : options_.decay;
  std::vector<at::Tensor> values;
  for (const Parameter& p : parameters_) values.push_back(p.value);
  at::_foreach_lerp_(averages_, values, 1 - decay);
  updates_.add_(1);
}

void Average::exchange() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < averages_.size(); ++i) {
    // Contents change places rather than storages: layers may hold views of the parameters.
    const at::Tensor value = parameters_[i].value.clone();
    parameters_[i].value.copy_(averages_[i]);
    averages_[i].copy_(value);
  }
  swapped_ = !swapped_;
}

Average::Swap::Swap(Average& average) : average_(average) {
  base::check(!average.swapped_, ErrorKind::internal, "the average is in the model already");
  average_.exchange();
}

Average::Swap::~Swap() { average_.exchange(); }

OptimizerState Average::state() const {
  base::check(!swapped_, ErrorKind::internal, "the average is saved while it stands in the model");
  OptimizerState out = {{"updates", updates_}};
  for (size_t i = 0; i < averages_.size(); ++i) out[parameters_[i].name] = averages_[i];
  return out;
}

void Average::load(const OptimizerState& saved) { copy_state(state(), saved, "average"); }

}  // namespace calotype::train
