// y = x·Wᵀ + b, whatever the file stores W in. Models are written with it and know nothing of number types.
//
//   Linear proj(scope / "proj", {.in = 3072, .out = 3072});
//   at::Tensor y_BLD = proj(x_BLD);
//
// Immutable after construction and thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include "weights/scope.h"

namespace calotype::weights {

struct LinearShape {
  int64_t in = 0, out = 0;
  bool bias = true;
};

class Linear {
 public:
  Linear(const Scope& scope, LinearShape shape);

  /// x [B, …, in] → [B, …, out] in x's type. Packed weights are unpacked for this call alone. On the CPU a sample's
  /// bits do not depend on the others of the batch.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor weight(at::ScalarType dtype) const;

  Source source_;     // for weights that are unpacked at every use
  at::Tensor dense_;  // defined for weights that are ready to use
  at::Tensor bias_;   // undefined without bias
  at::Device device_ = at::kCPU;
};

}  // namespace calotype::weights
