// The machine's peak in matrix products as LibTorch reaches it, and the parts of a transformer block at FLUX.1's sizes:
// 1280 tokens are a 512×512 picture with 256 text tokens.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <benchmark/benchmark.h>

#include "kernels/fused_ops.h"

namespace {

using at::Tensor;
using namespace calotype;

constexpr int64_t kTokens = 1280, kWidth = 3072, kHeads = 24;

void set_flops(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] =
      benchmark::Counter(flops * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

template <at::ScalarType kType>
void Linear(benchmark::State& state) {
  const c10::InferenceMode inference;
  const Tensor x = at::randn({kTokens, kWidth}).to(kType), w = at::randn({3 * kWidth, kWidth}).to(kType);
  for (auto _ : state) benchmark::DoNotOptimize(at::linear(x, w));
  set_flops(state, 2.0 * kTokens * kWidth * 3 * kWidth);
}
BENCHMARK(Linear<at::kFloat>)->UseRealTime();
BENCHMARK(Linear<at::kBFloat16>)->UseRealTime();

kernels::Heads heads(at::ScalarType type) {
  const auto random = [&] { return at::randn({1, kHeads, kTokens, kWidth / kHeads}).to(type); };
  return {random(), random(), random()};
}

constexpr double kAttentionFlops = 4.0 * kTokens * kTokens * kWidth;

template <at::ScalarType kType>
void Attention(benchmark::State& state) {
  const c10::InferenceMode inference;
  const kernels::Heads h = heads(kType);
  for (auto _ : state) benchmark::DoNotOptimize(kernels::attention(h));
  set_flops(state, kAttentionFlops);
}
BENCHMARK(Attention<at::kFloat>)->UseRealTime();
BENCHMARK(Attention<at::kBFloat16>)->UseRealTime();

template <at::ScalarType kType>
void AttentionOfAten(benchmark::State& state) {
  const c10::InferenceMode inference;
  const kernels::Heads h = heads(kType);
  for (auto _ : state) benchmark::DoNotOptimize(kernels::reference::attention(h));
  set_flops(state, kAttentionFlops);
}
BENCHMARK(AttentionOfAten<at::kFloat>)->UseRealTime();
BENCHMARK(AttentionOfAten<at::kBFloat16>)->UseRealTime();

struct BlockInputs {
  Tensor x = at::randn({1, kTokens, kWidth}).to(at::kBFloat16);
  Tensor qkv = at::randn({1, kTokens, 3 * kWidth}).to(at::kBFloat16);
  Tensor mlp = at::randn({1, kTokens, 4 * kWidth}).to(at::kBFloat16);
  Tensor scale_K = at::ones({kWidth / kHeads}).to(at::kBFloat16);
  kernels::Modulation m{at::randn({1, kWidth}).to(at::kBFloat16), at::randn({1, kWidth}).to(at::kBFloat16),
                        at::randn({1, kWidth}).to(at::kBFloat16)};
  kernels::RotaryTable table{at::randn({kTokens, 64}), at::randn({kTokens, 64})};
};

// All element-wise work of one single block.
void ElementWise(benchmark::State& state) {
  const c10::InferenceMode inference;
  const BlockInputs in;
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels::norm_modulate(in.x, in.m));
    benchmark::DoNotOptimize(kernels::qk_norm_rope({{in.qkv, in.scale_K, in.scale_K}}, in.table, 128));
    benchmark::DoNotOptimize(kernels::concat_gelu(in.x, in.mlp));
    benchmark::DoNotOptimize(kernels::gate_residual(in.x, in.m.gate, in.x));
  }
}
BENCHMARK(ElementWise)->UseRealTime()->Unit(benchmark::kMillisecond);

void ElementWiseOfAten(benchmark::State& state) {
  const c10::InferenceMode inference;
  const BlockInputs in;
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels::reference::norm_modulate(in.x, in.m));
    benchmark::DoNotOptimize(kernels::reference::qk_norm_rope({{in.qkv, in.scale_K, in.scale_K}}, in.table, 128));
    benchmark::DoNotOptimize(kernels::reference::concat_gelu(in.x, in.mlp));
    benchmark::DoNotOptimize(kernels::reference::gate_residual(in.x, in.m.gate, in.x));
  }
}
BENCHMARK(ElementWiseOfAten)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
