#include "weights/linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "weights/unpack.h"

namespace calotype::weights {
namespace {

using at::Tensor;
namespace autograd = torch::autograd;

/// The weight for one product, in a buffer that the thread's next call overwrites: fresh memory for every layer of a
/// 12-billion-parameter model would cost a step 48 GB of page faults.
Tensor unpacked_for_now(const Source& source, at::ScalarType dtype) {
  if (unpacks_in_place(source, dtype)) return unpack(source, dtype);
  thread_local Tensor buffer;
  const std::vector<int64_t> shape = source.shape();
  const int64_t bytes = c10::multiply_integers(shape) * static_cast<int64_t>(c10::elementSize(dtype));
  if (!buffer.defined() || buffer.numel() < bytes) {
    buffer = Tensor();
    buffer = at::empty({bytes}, at::kByte);
  }
  const Tensor out = buffer.narrow(0, 0, bytes).view(dtype).view(shape);
  unpack_into(source, out);
  return out;
}

/// How a frozen packed weight is had again in the backward pass. Such weights are used on the CPU only.
struct Unpacking : torch::CustomClassHolder {
  std::shared_ptr<const Source> source;
  Tensor weight(at::ScalarType dtype) const { return unpacked_for_now(*source, dtype); }
};

/// at::linear would keep the unpacked weight of every layer until the backward pass.
struct PackedLinear : autograd::Function<PackedLinear> {
  static Tensor forward(autograd::AutogradContext* context, const Tensor& x, const Tensor& bias,
                        const c10::intrusive_ptr<Unpacking>& packed) {
    context->saved_data["packed"] = c10::IValue::make_capsule(packed);
    return at::linear(x, packed->weight(x.scalar_type()), bias);
  }

  static autograd::variable_list backward(autograd::AutogradContext* context, const autograd::variable_list& grads) {
    const auto packed = c10::static_intrusive_pointer_cast<Unpacking>(context->saved_data["packed"].toCapsule());
    const Tensor& grad = grads[0];
    return {at::matmul(grad, packed->weight(grad.scalar_type())), Tensor(), Tensor()};
  }
};

Tensor as_type(const Tensor& t, at::ScalarType dtype) { return t.defined() ? t.to(dtype) : t; }

bool is_whole(const LowRank& c, const AdapterSlot& slot) { return c.up_OR.size(0) == slot.shape.out; }

Tensor product(const LowRank& c, const Tensor& x) { return at::linear(at::linear(x, c.down_RI), c.up_OR) * c.scale; }

Tensor& add_to(Tensor& sum, const Tensor& term) { return sum = sum.defined() ? sum + term : term; }

/// The sum of all corrections, [B, …, out] in f32.
Tensor corrections(const AdapterSlot& slot, const Tensor& x) {
  Tensor whole;
  std::map<int64_t, Tensor> ranges;  // by first row
  for (const LowRank& c : slot.corrections) add_to(is_whole(c, slot) ? whole : ranges[c.first_row], product(c, x));
  if (ranges.empty()) return whole;
  std::vector<Tensor> pieces;
  int64_t row = 0;
  const auto fill_to = [&](int64_t next) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = next - row;
    if (next > row) pieces.push_back(at::zeros(shape, x.options()));
  };
  for (const auto& [first, piece] : ranges) {
    fill_to(first);
    pieces.push_back(piece);
    row = first + piece.size(-1);
  }
  fill_to(slot.shape.out);
  return add_to(whole, at::cat(pieces, -1));
}

}  // namespace

Linear::Linear(const Scope& scope, LinearShape shape)
    : training_(scope.options().training), adapters_(scope.adapter_slot(shape)) {
  const at::Device device = scope.options().device;
  const LoadOptions& options = scope.options();
  if (options.trained) {
    dense_ = scope.tensor("weight", {shape.out, shape.in});
    if (shape.bias) bias_ = scope.tensor("bias", {shape.out});
    return;
  }
  const Source* source = scope.source("weight", {shape.out, shape.in});
  if (shape.bias) bias_ = scope.tensor("bias", {shape.out});
  if (!source || device.is_meta()) {
    dense_ = at::empty({shape.out, shape.in}, at::TensorOptions().dtype(options.dtype).device(at::kMeta));
    return;
  }
  // On a GPU weights are unpacked once, when they are loaded: decoding runs on the CPU only.
  const bool converts =
      options.plain == LoadOptions::Plain::convert_at_use && !unpacks_in_place(*source, options.dtype);
  const bool at_use = device.is_cpu() && (is_packed(*source) || converts);
  if (at_use) {
    source_ = std::make_shared<const Source>(*source);
    return;
  }
  dense_ = unpack(*source, options.dtype).to(device);
  if (device.is_cpu() && unpacks_in_place(*source, options.dtype)) return;  // the pages themselves are in use
  for (const Source::Part& part : source->parts) part.tensor.file->release(part.tensor.bytes);
}

at::Tensor Linear::weight(at::ScalarType dtype) const {
  return dense_.defined() ? dense_.to(dtype) : unpacked_for_now(*source_, dtype);
}

at::Tensor Linear::base(const at::Tensor& x) const {
  const Tensor bias = as_type(bias_, x.scalar_type());
  if (source_ && at::GradMode::is_enabled() && x.requires_grad()) {
    auto packed = c10::make_intrusive<Unpacking>();
    packed->source = source_;
    return PackedLinear::apply(x, bias, packed);
  }
  const Tensor w = weight(x.scalar_type());
  if (training_ || !x.is_cpu() || x.dim() < 2 || x.size(0) == 1) return at::linear(x, w, bias);
  // The number of rows decides which kernel runs, and with it the last bits; samples go one by one to be always the
  // same.
  std::vector<Tensor> samples;
  for (int64_t i = 0; i < x.size(0); ++i) samples.push_back(at::linear(x.narrow(0, i, 1), w, bias));
  return at::cat(samples);
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  const Tensor y = base(x);
  if (adapters_->corrections.empty()) return y;
  const Tensor sum = corrections(*adapters_, x.to(at::kFloat));
  return (y.to(at::kFloat) + sum).to(x.scalar_type());
}

}  // namespace calotype::weights
