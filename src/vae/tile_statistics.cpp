#include "vae/tile_statistics.h"

#include <ATen/ATen.h>

namespace calotype::vae {

void TileStatistics::begin_pass() {
  known_ = std::move(gathered_);
  gathered_.clear();
}

Tensor TileStatistics::normalise(const Tensor& x, const GroupNorm& norm) {
  const size_t index = next_++;
  if (gathered_.size() <= index) gathered_.resize(index + 1);
  const int64_t per_group = x.size(1) / norm.groups;
  const auto by_group = [&](const Tensor& channel_sums) { return channel_sums.to(at::kDouble).view({norm.groups, per_group}).sum(1); };
  Layer own{.sum_G = by_group(x.sum({0, 2, 3}, false, at::kFloat)),
            .squares_G = by_group(at::mul(x, x).sum({0, 2, 3}, false, at::kFloat)),
            .count = static_cast<double>(x.numel() / norm.groups)};

  Layer& total = gathered_[index];
  total = total.count == 0 ? own : Layer{total.sum_G + own.sum_G, total.squares_G + own.squares_G, total.count + own.count};

  const Layer& used = index < known_.size() ? known_[index] : own;
  const Tensor mean_G = used.sum_G / used.count;
  const Tensor rstd_G = (used.squares_G / used.count - mean_G.square() + 1e-6).rsqrt();
  const auto per_channel = [&](const Tensor& t_G) { return t_G.repeat_interleave(per_group); };
  const Tensor scale_C = per_channel(rstd_G) * norm.weight_C;
  const Tensor shift_C = norm.bias_C - per_channel(mean_G) * scale_C;
  const auto shaped = [&](const Tensor& t_C) { return t_C.to(at::kFloat).view({1, -1, 1, 1}); };
  return (x * shaped(scale_C) + shaped(shift_C)).to(x.scalar_type());
}

}  // namespace calotype::vae
