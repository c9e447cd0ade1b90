// One matrix [N, K] of a head in the orders that block products read (block_products.h).
//
// Stored is the tensors' type, T that of the products: the same, or f32 for bf16 tensors on machines without products
// of bf16. Right factors of many columns are kept in blocks whose rows lie side by side, since rows whole kilobytes
// apart compete for the same cache lines: that alone halves the speed of f32 products.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernels/fused_rows.h"

namespace calotype::kernels::cpu {

/// The type that the SIMD rows use for T.
template <typename T>
using Bits = std::conditional_t<std::is_same_v<T, float>, float, uint16_t>;
template <typename T>
Bits<T>* bits(T* p) {
  return reinterpret_cast<Bits<T>*>(p);
}
template <typename T>
const Bits<T>* bits(const T* p) {
  return reinterpret_cast<const Bits<T>*>(p);
}

/// Products of bf16 read inner rows in pairs.
inline int64_t even(int64_t tokens) { return (tokens + 1) / 2 * 2; }

/// Rows of `width` numbers, `stride` apart, → side by side.
template <typename Stored, typename T>
void copy_rows(const Stored* in, int64_t rows, int64_t width, int64_t stride, T* out) {
  for (int64_t i = 0; i < rows; ++i, in += stride, out += width) std::copy_n(in, width, out);
}

/// [N, K], N even, → right factor [N, K].
template <typename T>
void to_right(const T* rows, int64_t tokens, int64_t width, T* out) {
  if constexpr (std::is_same_v<T, float>)
    std::copy_n(rows, tokens * width, out);
  else
    for (int64_t i = 0; i < tokens; i += 2)
      interleave_row(bits(rows + i * width), bits(rows + (i + 1) * width), static_cast<size_t>(width),
                     bits(out + i * width));
}

/// [N, K] → right factors [K, block] of `block` tokens each; the factor of tokens from n on begins at n · K.
template <typename T>
void to_turned_right(const T* rows, int64_t tokens, int64_t width, int64_t block, T* out) {
  // Two neighbouring bf16 of a row are the pair that the product wants, and move as one.
  constexpr int64_t kMoved = sizeof(uint32_t) / sizeof(T);
  for (int64_t n = 0; n < tokens; n += block)
    transpose(reinterpret_cast<const uint32_t*>(rows + n * width),
              {.rows = static_cast<size_t>(std::min(block, tokens - n)),
               .columns = static_cast<size_t>(width / kMoved),
               .ld_in = static_cast<size_t>(width / kMoved),
               .ld_out = static_cast<size_t>(block)},
              reinterpret_cast<uint32_t*>(out + n * width));
}

/// Numbers that to_turned_right() needs: the last block is a whole one.
inline int64_t turned_size(int64_t tokens, int64_t width, int64_t block) {
  return (tokens + block - 1) / block * block * width;
}

}  // namespace calotype::kernels::cpu
