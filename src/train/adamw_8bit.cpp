#include "train/adamw_8bit.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

namespace calotype::train {
namespace {

constexpr int64_t kBlock = 256, kSmallest = 4096;
// Numbers are worked on in slices, so that temporaries stay small beside the model and, on a CPU, in its cache.
constexpr int64_t kSliceBlocks = 4096;

Parameters small_ones(const Parameters& parameters) {
  Parameters out;
  for (const Parameter& p : parameters)
    if (p.value.numel() < kSmallest) out.push_back(p);
  return out;
}

/// Halfway between neighbours: a number's code is how many of these lie below it.
at::Tensor borders(const at::Tensor& table) { return (table.slice(0, 1) + table.slice(0, 0, -1)).div(2); }

/// [blocks, 256] f32.
at::Tensor decode(const at::Tensor& codes, const at::Tensor& scales, const at::Tensor& table) {
  const at::Tensor values = table.index_select(0, codes.flatten().to(at::kInt)).view(codes.sizes());
  return values.mul_(scales.unsqueeze(1));
}

void encode(const at::Tensor& values, const at::Tensor& borders, const at::Tensor& codes, const at::Tensor& scales) {
  scales.copy_(values.abs().amax(1));
  // A block of zeros has scale 0, which must not divide.
  const at::Tensor unit = values / scales.clamp_min(std::numeric_limits<float>::min()).unsqueeze(1);
  nearest_codes(unit, borders, codes);
}

constexpr int64_t kAtOnce = 16;

/// Eight halvings, each for 16 numbers side by side so that compilers neither branch nor wait: 4 ns a number, where one
/// after another takes 10 and at::bucketize 50.
void count_below(const float* values, const float* borders, int64_t count, uint8_t* out) {
  float value[kAtOnce] = {};
  unsigned below[kAtOnce] = {};
  std::copy_n(values, count, value);
  for (unsigned half = 128; half > 0; half /= 2)
    for (int64_t k = 0; k < kAtOnce; ++k) below[k] += borders[below[k] + half - 1] < value[k] ? half : 0;
  for (int64_t k = 0; k < count; ++k) out[k] = static_cast<uint8_t>(below[k]);
}

}  // namespace

void nearest_codes(const at::Tensor& values, const at::Tensor& borders, const at::Tensor& codes) {
  if (!values.is_cpu()) {
    codes.copy_(at::bucketize(values, borders, /*out_int32=*/true));
    return;
  }
  const float *value = values.const_data_ptr<float>(), *border = borders.const_data_ptr<float>();
  auto* code = codes.data_ptr<uint8_t>();
  at::parallel_for(0, (values.numel() + kAtOnce - 1) / kAtOnce, 1 << 10, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kAtOnce; first < std::min(end * kAtOnce, values.numel()); first += kAtOnce)
      count_below(value + first, border, std::min(kAtOnce, values.numel() - first), code + first);
  });
}

std::vector<float> dynamic_code(bool with_sign) {
  std::vector<float> out = {0, 1};
  for (int decade = 0; decade < 7; ++decade) {
    const int count = (with_sign ? 1 : 2) << decade;
    for (int i = 0; i < count; ++i) {
      const double middle = 0.1 + 0.9 * (i + 0.5) / count;
      const auto value = static_cast<float>(middle * std::pow(10, decade - 6));
      out.push_back(value);
      if (with_sign) out.push_back(-value);
    }
  }
  std::ranges::sort(out);
  return out;
}

AdamW8bit::AdamW8bit(const OptimizerOptions& options, const Parameters& parameters)
    : options_(options), small_(options, small_ones(parameters)) {
  for (const Parameter& p : parameters) {
    if (p.value.numel() < kSmallest) continue;
    const int64_t blocks = (p.value.numel() + kBlock - 1) / kBlock;
    const auto zeros = [&](const at::Tensor& table) {
      const int64_t zero = (table == 0).nonzero().item<int64_t>();
      return Codes{at::full({blocks, kBlock}, zero, p.value.options().dtype(at::kByte)),
                   at::zeros({blocks}, p.value.options())};
    };
    if (!mean_table_.defined()) {
      mean_table_ = at::tensor(dynamic_code(true)).to(p.value.device());
      square_table_ = at::tensor(dynamic_code(false)).to(p.value.device());
      mean_borders_ = borders(mean_table_);
      square_borders_ = borders(square_table_);
    }
    large_.push_back({p, at::zeros({}, at::kLong), zeros(mean_table_), zeros(square_table_)});
  }
}

void AdamW8bit::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  small_.step(learning_rate);
  for (const Large& tensor : large_)
    if (tensor.parameter.value.grad().defined()) update(tensor, learning_rate);
}

void AdamW8bit::update(const Large& tensor, double learning_rate) const {
  tensor.step.add_(1);
  const auto count = static_cast<double>(tensor.step.item<int64_t>());
  const double mean_correction = 1 - std::pow(options_.beta1, count);
  const double root_correction = std::sqrt(1 - std::pow(options_.beta2, count));
  const at::Tensor values = tensor.parameter.value.view(-1), gradients = tensor.parameter.value.grad().reshape(-1);
  const int64_t blocks = tensor.mean.scales.numel();
  for (int64_t first = 0; first < blocks; first += kSliceBlocks) {
    const int64_t slice = std::min(kSliceBlocks, blocks - first);
    const int64_t begin = first * kBlock, numbers = std::min(slice * kBlock, values.numel() - begin);
    at::Tensor gradient = gradients.narrow(0, begin, numbers);
    if (numbers < slice * kBlock) gradient = at::constant_pad_nd(gradient, {0, slice * kBlock - numbers});
    gradient = gradient.view({slice, kBlock});
    const auto part = [&](const Codes& codes) {
      return Codes{codes.codes.narrow(0, first, slice), codes.scales.narrow(0, first, slice)};
    };
    const Codes mean_codes = part(tensor.mean), square_codes = part(tensor.square);

    const at::Tensor mean = decode(mean_codes.codes, mean_codes.scales, mean_table_)
                                .mul_(options_.beta1)
                                .add_(gradient, 1 - options_.beta1);
    const at::Tensor square = decode(square_codes.codes, square_codes.scales, square_table_)
                                  .mul_(options_.beta2)
                                  .addcmul_(gradient, gradient, 1 - options_.beta2);
    const at::Tensor root = square.sqrt().div_(root_correction).add_(options_.epsilon);
    at::Tensor value = values.narrow(0, begin, numbers);
    value.mul_(1 - learning_rate * options_.weight_decay);
    value.addcdiv_(mean.view(-1).narrow(0, 0, numbers), root.view(-1).narrow(0, 0, numbers),
                   -learning_rate / mean_correction);
    encode(mean, mean_borders_, mean_codes.codes, mean_codes.scales);
    encode(square, square_borders_, square_codes.codes, square_codes.scales);
  }
}

OptimizerState AdamW8bit::state() const {
  OptimizerState out = small_.state();
  for (const Large& tensor : large_) {
    const std::string& name = tensor.parameter.name;
    out[name + ".step"] = tensor.step;
    out[name + ".exp_avg"] = tensor.mean.codes;
    out[name + ".exp_avg.scale"] = tensor.mean.scales;
    out[name + ".exp_avg_sq"] = tensor.square.codes;
    out[name + ".exp_avg_sq.scale"] = tensor.square.scales;
  }
  return out;
}

}  // namespace calotype::train
