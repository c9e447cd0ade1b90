#include "weights/linear.h"

#include <ATen/ATen.h>

#include "weights/unpack.h"

namespace calotype::weights {

Linear::Linear(const Scope& scope, LinearShape shape) : device_(scope.options().device) {
  const Source* source = scope.source("weight", {shape.out, shape.in});
  if (shape.bias) bias_ = scope.tensor("bias", {shape.out});
  const LoadOptions& options = scope.options();
  if (!source || device_.is_meta()) {
    dense_ = at::empty({shape.out, shape.in}, at::TensorOptions().dtype(options.dtype).device(at::kMeta));
    return;
  }
  // On a GPU weights are unpacked once, when they are loaded: decoding runs on the CPU only.
  const bool converts = options.plain == LoadOptions::Plain::convert_at_use && !unpacks_in_place(*source, options.dtype);
  const bool at_use = device_.is_cpu() && (is_packed(*source) || converts);
  if (at_use) {
    source_ = *source;
    return;
  }
  dense_ = unpack(*source, options.dtype).to(device_);
  if (unpacks_in_place(*source, options.dtype)) return;
  for (const Source::Part& part : source->parts) part.tensor.file->release(part.tensor.bytes);
}

at::Tensor Linear::weight(at::ScalarType dtype) const {
  return dense_.defined() ? dense_ : unpack(source_, dtype).to(device_);
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  const at::Tensor w = weight(x.scalar_type());
  if (!x.is_cpu() || x.dim() < 2 || x.size(0) == 1) return at::linear(x, w, bias_);
  // The number of rows decides which kernel runs, and with it the last bits; samples go one by one to be always the
  // same.
  std::vector<at::Tensor> samples;
  for (int64_t i = 0; i < x.size(0); ++i) samples.push_back(at::linear(x.narrow(0, i, 1), w, bias_));
  return at::cat(samples);
}

}  // namespace calotype::weights
