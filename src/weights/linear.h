// y = x·Wᵀ + b, whatever the file stores W in, plus the low-rank corrections attached to it. Models are written with it
// and know nothing of number types nor adapters.
//
//   Linear proj(scope / "proj", {.in = 3072, .out = 3072});
//   at::Tensor y_BLD = proj(x_BLD);
//
// Records gradients of x, of corrections, and of W where the scope trains it; a packed W is unpacked again in the
// backward pass rather than kept. Immutable after construction but for its adapter slot, and thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include "weights/scope.h"

namespace calotype::weights {

class Linear {
 public:
  Linear(const Scope& scope, LinearShape shape);

  /// x [B, …, in] → [B, …, out] in x's type. Packed weights are unpacked for this call alone. On the CPU a sample's
  /// bits do not depend on the others of the batch, unless LoadOptions::training.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor base(const at::Tensor& x) const;
  at::Tensor weight(at::ScalarType dtype) const;

  std::shared_ptr<const Source> source_;  // for weights that are unpacked at every use
  at::Tensor dense_;                      // defined for weights that are ready to use
  at::Tensor bias_;                       // undefined without bias
  bool training_ = false;
  std::shared_ptr<AdapterSlot> adapters_;
};

}  // namespace calotype::weights
