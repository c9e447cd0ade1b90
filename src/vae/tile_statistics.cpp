#include "vae/tile_statistics.h"

#include <ATen/ATen.h>

namespace calotype::vae {

void TileStatistics::begin_pass() {
  known_ = std::move(gathered_);
  gathered_.clear();
}

Tensor TileStatistics::Layer::mean() const { return sum_G / count; }

Tensor TileStatistics::Layer::deviation() const {
  return (squares_G / count - mean().square()).clamp_min(0).add(1e-6).sqrt();
}

bool TileStatistics::settled() const {
  constexpr double kTolerance = 1e-3;  // of a standard deviation; well below the 40 dB that tiles must reach
  if (known_.size() != gathered_.size()) return false;
  for (size_t i = 0; i < known_.size(); ++i) {
    const Tensor unit = known_[i].deviation() * kTolerance;
    const Tensor moved = (known_[i].mean() - gathered_[i].mean()).abs() > unit;
    const Tensor stretched = (known_[i].deviation() - gathered_[i].deviation()).abs() > unit;
    if (moved.any().item<bool>() || stretched.any().item<bool>()) return false;
  }
  return true;
}

void TileStatistics::begin_tile(KeptRegion kept) {
  kept_ = kept;
  next_ = 0;
}

Tensor TileStatistics::normalise(const Tensor& x, const GroupNorm& norm) {
  const size_t index = next_++;
  if (gathered_.size() <= index) gathered_.resize(index + 1);
  const int64_t per_group = x.size(1) / norm.groups;
  const auto by_group = [&](const Tensor& channel_sums) {
    return channel_sums.to(at::kDouble).view({norm.groups, per_group}).sum(1);
  };
  const int64_t grown = x.size(2) / kept_.tile_height;
  const Tensor kept =
      x.narrow(2, kept_.top * grown, kept_.height * grown).narrow(3, kept_.left * grown, kept_.width * grown);
  Layer own{.sum_G = by_group(kept.sum({0, 2, 3}, false, at::kFloat)),
            .squares_G = by_group(at::mul(kept, kept).sum({0, 2, 3}, false, at::kFloat)),
            .count = static_cast<double>(kept.numel() / norm.groups)};

  Layer& total = gathered_[index];
  total =
      total.count == 0 ? own : Layer{total.sum_G + own.sum_G, total.squares_G + own.squares_G, total.count + own.count};

  const Layer& used = index < known_.size() ? known_[index] : own;
  const auto per_channel = [&](const Tensor& t_G) { return t_G.repeat_interleave(per_group); };
  const Tensor scale_C = norm.weight_C / per_channel(used.deviation());
  const Tensor shift_C = norm.bias_C - per_channel(used.mean()) * scale_C;
  const auto shaped = [&](const Tensor& t_C) { return t_C.to(at::kFloat).view({1, -1, 1, 1}); };
  return (x * shaped(scale_C) + shaped(shift_C)).to(x.scalar_type());
}

}  // namespace calotype::vae
