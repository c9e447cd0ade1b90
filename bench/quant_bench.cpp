// Elements a second on one thread: every weight type to bf16, and f32 to every type. "cached" works within a core's L2,
// as when a layer is decoded tile by tile; "memory" streams 64 Mi elements, 128 MiB of bf16.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "weights/quant.h"

namespace {

using calotype::files::TensorType;

constexpr int64_t kCached = 128 << 10, kMemory = 64 << 20;

void decode_to_bf16(benchmark::State& state, TensorType type) {
  const auto count = static_cast<size_t>(state.range(0));
  std::vector<std::byte> bytes(*calotype::files::bytes_of(type, count));
  std::mt19937 rng(0);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng() & 0x3B);  // no NaN, no infinity in any type
  std::vector<uint16_t> out(count);
  for (auto _ : state) {
    calotype::weights::decode_bf16(type, bytes, out);
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void encode_from_f32(benchmark::State& state, TensorType type) {
  std::vector<float> values(static_cast<size_t>(state.range(0)));
  std::mt19937 rng(0);
  std::normal_distribution<float> normal(0, 0.02F);
  for (float& value : values) value = normal(rng);
  std::vector<std::byte> bytes(*calotype::files::bytes_of(type, values.size()));
  for (auto _ : state) {
    calotype::weights::encode(type, values, bytes);
    benchmark::DoNotOptimize(bytes.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void register_all() {
  using enum TensorType;
  for (const TensorType type :
       {f64, f32, f16, bf16, f8_e4m3, f8_e5m2, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k}) {
    const std::string name(calotype::files::name(type));
    const auto decode = [type](benchmark::State& state) { decode_to_bf16(state, type); };
    benchmark::RegisterBenchmark(("decode/cached/" + name).c_str(), decode)->Arg(kCached);
    benchmark::RegisterBenchmark(("decode/memory/" + name).c_str(), decode)->Arg(kMemory);
    if (type != f64)
      benchmark::RegisterBenchmark(("encode/" + name).c_str(), [type](benchmark::State& s) {
        encode_from_f32(s, type);
      })->Arg(kCached);
  }
}

}  // namespace

int main(int argc, char** argv) {
  register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
