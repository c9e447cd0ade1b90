// Forward and backward of the fused ops against autograd of the ATen chains: a single block's element-wise work and
// attention at the sizes of the small model (64 pictures of 64 + 16 tokens, 4 heads of 64) and of one 256×256 picture
// in FLUX.1 (24 heads of 128, 256 + 512 tokens), and the autoencoder's GroupNorm + SiLU.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "kernels/fused_ops.h"

namespace {

using at::Tensor;
using namespace calotype;
using Tensors = std::vector<Tensor>;
using Op = std::function<Tensors(const Tensors&)>;

struct Size {
  const char* name;
  int64_t batch, tokens, heads, head_width;
  int64_t width() const { return heads * head_width; }
};
constexpr Size kSmall{"small", 64, 80, 4, 64}, kFlux{"flux256", 1, 768, 24, 128};

void forward_backward(benchmark::State& state, const Op& op, const Tensors& inputs) {
  Tensors leaves, weights;
  for (const Tensor& t : inputs) leaves.push_back(t.detach().requires_grad_(true));
  for (const Tensor& t : op(leaves)) weights.push_back(at::randn_like(t));
  for (auto _ : state) benchmark::DoNotOptimize(torch::autograd::grad(op(leaves), leaves, weights));
}

void register_pair(const std::string& name, const Op& fused, const Op& chain, const Tensors& inputs) {
  for (const auto& [kind, op] : {std::pair{"fused", fused}, std::pair{"aten", chain}})
    benchmark::RegisterBenchmark((name + "/" + kind).c_str(),
                                 [op, inputs](benchmark::State& s) { forward_backward(s, op, inputs); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
}

void register_block(const Size& s, at::ScalarType dtype) {
  const auto random = [dtype](std::vector<int64_t> shape) { return at::randn(shape).to(dtype); };
  const std::string suffix = std::string("/") + s.name + (dtype == at::kFloat ? "/f32" : "/bf16");
  const int64_t width = s.width();
  const Tensor x = random({s.batch, s.tokens, width}), vector = random({s.batch, width});
  const kernels::RotaryTable table{at::randn({s.tokens, s.head_width / 2}), at::randn({s.tokens, s.head_width / 2})};
  register_pair(
      "norm_modulate" + suffix,
      [](const Tensors& t) {
        return Tensors{kernels::norm_modulate(t[0], {t[1], t[2], {}})};
      },
      [](const Tensors& t) {
        return Tensors{kernels::reference::norm_modulate(t[0], {t[1], t[2], {}})};
      },
      {x, vector, vector});
  register_pair(
      "gate_residual" + suffix, [](const Tensors& t) { return Tensors{kernels::gate_residual(t[0], t[1], t[2])}; },
      [](const Tensors& t) { return Tensors{kernels::reference::gate_residual(t[0], t[1], t[2])}; }, {x, vector, x});
  register_pair(
      "concat_gelu" + suffix, [](const Tensors& t) { return Tensors{kernels::concat_gelu(t[0], t[1])}; },
      [](const Tensors& t) { return Tensors{kernels::reference::concat_gelu(t[0], t[1])}; },
      {x, random({s.batch, s.tokens, 4 * width})});
  const auto rope = [table, s](auto op) {
    return [=](const Tensors& t) {
      const kernels::Heads h = op({{t[0], t[1], t[2]}}, table, s.head_width);
      return Tensors{h.q_BHNK, h.k_BHNK, h.v_BHNK};
    };
  };
  register_pair("qk_norm_rope" + suffix, rope(kernels::qk_norm_rope), rope(kernels::reference::qk_norm_rope),
                {random({s.batch, s.tokens, 3 * width}), random({s.head_width}), random({s.head_width})});
  const Tensor head = random({s.batch, s.heads, s.tokens, s.head_width});
  register_pair(
      "attention" + suffix,
      [](const Tensors& t) {
        return Tensors{kernels::attention({t[0], t[1], t[2]})};
      },
      [](const Tensors& t) {
        return Tensors{kernels::reference::attention({t[0], t[1], t[2]})};
      },
      {head, head, head});
}

void register_group_norm(int64_t batch, int64_t channels, int64_t side, at::ScalarType dtype) {
  const auto with = [](auto op) { return [op](const Tensors& t) { return Tensors{op(t[0], t[1], t[2], 8, 1e-6)}; }; };
  const Tensor x = at::randn({batch, channels, side, side}).to(dtype).contiguous(at::MemoryFormat::ChannelsLast);
  register_pair("group_norm_silu/" + std::to_string(channels) + (dtype == at::kFloat ? "/f32" : "/bf16"),
                with(kernels::group_norm_silu), with(kernels::reference::group_norm_silu),
                {x, at::randn({channels}).to(dtype), at::randn({channels}).to(dtype)});
}

}  // namespace

int main(int argc, char** argv) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const Size& size : {kSmall, kFlux}) register_block(size, dtype);
    register_group_norm(8, 24, 64, dtype);
    register_group_norm(8, 128, 32, dtype);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
