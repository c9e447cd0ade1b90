// Numbers of a row as f32 vectors, whether they are stored as f32 or as bf16 bits: what all SIMD rows load, round and
// store with. Compiled once per instruction set; include it after <hwy/foreach_target.h>, never elsewhere.
#if defined(CALOTYPE_KERNELS_SIMD_NUMBERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CALOTYPE_KERNELS_SIMD_NUMBERS_INL_H_
#undef CALOTYPE_KERNELS_SIMD_NUMBERS_INL_H_
#else
#define CALOTYPE_KERNELS_SIMD_NUMBERS_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace calotype::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D32 = hn::ScalableTag<float>;
using V32 = hn::Vec<D32>;

HWY_INLINE V32 load(D32 d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE void store(D32 d, V32 v, float* p) { hn::StoreU(v, d, p); }

HWY_INLINE V32 load(D32 d, const uint16_t* p) {
  const hn::RebindToUnsigned<D32> du;
  const hn::Rebind<uint16_t, D32> d16;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(d16, p))));
}

/// Upper halves of the f32 numbers, rounded to nearest even; NaN stays NaN.
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D32>> bf16_bits(V32 v) {
  const hn::RebindToUnsigned<D32> du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFFu))));
  const auto is_number = hn::RebindMask(du, hn::Eq(v, v));
  return hn::IfThenElse(is_number, rounded, hn::Set(du, 0x7FC0u));
}

HWY_INLINE void store(D32, V32 v, uint16_t* p) {
  const hn::Rebind<uint16_t, D32> d16;
  hn::StoreU(hn::TruncateTo(d16, bf16_bits(v)), d16, p);
}

template <typename T>
HWY_INLINE V32 round_to(D32 d, V32 v) {
  if constexpr (sizeof(T) == 4) return v;
  return hn::BitCast(d, hn::ShiftLeft<16>(bf16_bits(v)));
}

HWY_INLINE float round_one(float v, const float*) { return v; }
HWY_INLINE float round_one(float v, const uint16_t*) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, 4);
  if (v != v)
    bits = 0x7FC00000u;
  else
    bits = (bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u;
  __builtin_memcpy(&v, &bits, 4);
  return v;
}
HWY_INLINE float load_one(const float* p) { return *p; }
HWY_INLINE float load_one(const uint16_t* p) {
  const uint32_t bits = static_cast<uint32_t>(*p) << 16;
  float v;
  __builtin_memcpy(&v, &bits, 4);
  return v;
}
HWY_INLINE void store_one(float v, float* p) { *p = v; }
HWY_INLINE void store_one(float v, uint16_t* p) {
  v = round_one(v, p);
  uint32_t bits;
  __builtin_memcpy(&bits, &v, 4);
  *p = static_cast<uint16_t>(bits >> 16);
}

// The last numbers of a row go through the same vector code as the others, so that a number's result does not depend
// on its place: `n` numbers are loaded (zeros behind them) or stored.
template <typename T>
HWY_INLINE V32 load(D32 d, const T* p, size_t n) {
  if (HWY_LIKELY(n == hn::Lanes(d))) return load(d, p);
  HWY_ALIGN T rest[HWY_MAX_BYTES / sizeof(float)] = {};
  for (size_t i = 0; i < n; ++i) rest[i] = p[i];
  return load(d, rest);
}

template <typename T>
HWY_INLINE void store(D32 d, V32 v, T* p, size_t n) {
  if (HWY_LIKELY(n == hn::Lanes(d))) return store(d, v, p);
  HWY_ALIGN T rest[HWY_MAX_BYTES / sizeof(float)];
  store(d, v, rest);
  for (size_t i = 0; i < n; ++i) p[i] = rest[i];
}

HWY_INLINE float total(D32 d, V32 v) { return hn::GetLane(hn::SumOfLanes(d, v)); }

struct MeanAndRstd {
  float mean, rstd;
};

/// Of layer normalisation, eps 1e-6.
template <typename T>
HWY_INLINE MeanAndRstd mean_and_rstd(D32 d, const T* HWY_RESTRICT x, size_t width) {
  const size_t lanes = hn::Lanes(d);
  auto sums = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= width; i += lanes) sums = hn::Add(sums, load(d, x + i));
  float sum = total(d, sums);
  for (; i < width; ++i) sum += load_one(x + i);
  const float mean = sum / static_cast<float>(width);

  auto squares = hn::Zero(d);
  const auto mean_v = hn::Set(d, mean);
  for (i = 0; i + lanes <= width; i += lanes) {
    const auto centred = hn::Sub(load(d, x + i), mean_v);
    squares = hn::MulAdd(centred, centred, squares);
  }
  float variance = total(d, squares);
  for (; i < width; ++i) variance += (load_one(x + i) - mean) * (load_one(x + i) - mean);
  return {mean, 1.0f / std::sqrt(variance / static_cast<float>(width) + 1e-6f)};
}

/// Of root-mean-square normalisation, eps 1e-6.
template <typename T>
HWY_INLINE float reciprocal_rms(D32 d, const T* HWY_RESTRICT x, size_t width) {
  const size_t lanes = hn::Lanes(d);
  auto sums = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    const auto v = load(d, x + i);
    sums = hn::MulAdd(v, v, sums);
  }
  float squares = total(d, sums);
  for (; i < width; ++i) squares += load_one(x + i) * load_one(x + i);
  return 1.0f / std::sqrt(squares / static_cast<float>(width) + 1e-6f);
}

}  // namespace calotype::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
