// Small matrix products inside one thread, on oneDNN's block kernels ("brgemm"): the inner steps of attention.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/native/CPUBlas.h>

#include <type_traits>
#include <vector>

namespace calotype::kernels::cpu {

/// c[m, n] (+)= a[m, k] · b[k, n], rows `ld_…` numbers apart. bf16 wants k even and rows 2i and 2i + 1 of b
/// interleaved: b[2i][0], b[2i + 1][0], b[2i][1] …
template <typename T>
void multiply(int64_t m, int64_t n, int64_t k, const T* a, int64_t ld_a, const T* b, int64_t ld_b, float* c,
              int64_t ld_c, bool add) {
  at::native::cpublas::brgemm(m, n, k, ld_a, ld_b, ld_c, add, a, b, c, std::is_same_v<T, at::BFloat16>);
}

/// A thread calls this after its last product: AMX tiles are a state of the thread.
inline void end_products() { at::native::cpublas::brgemm_release(); }

template <typename T>
bool has_block_products() {
  // The library has no query for it: kernels that the machine lacks throw.
  static const bool works = [] {
    try {
      std::vector<T> a(16 * 16), b(16 * 16);
      std::vector<float> c(16 * 16);
      multiply<T>(16, 16, 16, a.data(), 16, b.data(), 16, c.data(), 16, false);
      end_products();
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }();
  return works;
}

}  // namespace calotype::kernels::cpu
