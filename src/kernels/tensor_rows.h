// How the CPU kernels walk tensors: element types, rows, and threads. Sums over rows are taken in chunks of a fixed
// number of rows that are added in order, so that no result depends on the number of threads.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

namespace calotype::kernels::cpu {

using at::Tensor;

/// Rows are cheap; a thread should get at least this many numbers.
inline constexpr int64_t kGrainNumbers = 32768;

inline int64_t grain(int64_t numbers_each) {
  return std::max<int64_t>(1, kGrainNumbers / std::max<int64_t>(1, numbers_each));
}

/// Calls `body` with a null pointer of the element type that the SIMD rows use for this tensor.
template <typename Body>
void with_type(const Tensor& t, Body body) {
  if (t.scalar_type() == at::kFloat)
    body(static_cast<float*>(nullptr));
  else
    body(static_cast<uint16_t*>(nullptr));
}

template <typename T>
const T* row_of(const Tensor& t_BLD, int64_t b, int64_t l) {
  return static_cast<const T*>(t_BLD.const_data_ptr()) + b * t_BLD.stride(0) + l * t_BLD.stride(1);
}

template <typename T>
T* begin_of(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

inline Tensor as_float(const Tensor& t) { return t.to(at::kFloat).contiguous(); }

/// Walks the B·L rows of a [B, L, …] tensor on all threads.
template <typename Body>
void for_rows(const Tensor& t_BLD, Body body) {
  const int64_t length = t_BLD.size(1);
  at::parallel_for(0, t_BLD.size(0) * length, grain(t_BLD.size(-1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / length, i % length, i);
  });
}

/// Rows whose gradients of shared parameters are summed before anything else.
inline constexpr int64_t kChunkRows = 32;
inline int64_t chunks_of(int64_t rows) { return (rows + kChunkRows - 1) / kChunkRows; }

/// f32 [B, C, …] → [B, …]: adds the C chunks in order.
inline Tensor sum_chunks(const Tensor& chunks) {
  const Tensor total = chunks.select(1, 0).clone();
  const int64_t count = total.numel() / std::max<int64_t>(1, total.size(0));
  const float* from = chunks.const_data_ptr<float>();
  for (int64_t b = 0; b < chunks.size(0); ++b) {
    float* to = total.mutable_data_ptr<float>() + b * count;
    for (int64_t c = 0; c < chunks.size(1); ++c, from += count)
      for (int64_t i = 0; c > 0 && i < count; ++i) to[i] += from[i];
  }
  return total;
}

}  // namespace calotype::kernels::cpu
