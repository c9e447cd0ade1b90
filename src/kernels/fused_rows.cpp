#include "kernels/fused_rows.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/fused_rows.cpp"
#include <hwy/foreach_target.h>
// Highway wants its own headers after foreach_target.h.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "kernels/simd_numbers-inl.h"

HWY_BEFORE_NAMESPACE();
namespace calotype::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
void norm_modulate(const T* HWY_RESTRICT x, const NormModulateRow& row, T* HWY_RESTRICT out) {
  const D32 d;
  const size_t lanes = hn::Lanes(d), width = row.width;
  const auto [mean, rstd] = mean_and_rstd(d, x, width);
  const auto mean_v = hn::Set(d, mean), rstd_v = hn::Set(d, rstd);
  size_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    const auto normed = round_to<T>(d, hn::Mul(hn::Sub(load(d, x + i), mean_v), rstd_v));
    const auto scaled = round_to<T>(d, hn::Mul(normed, hn::LoadU(d, row.one_plus_scale + i)));
    store(d, hn::Add(scaled, hn::LoadU(d, row.shift + i)), out + i);
  }
  for (; i < width; ++i) {
    const float normed = round_one((load_one(x + i) - mean) * rstd, x);
    store_one(round_one(normed * row.one_plus_scale[i], x) + row.shift[i], out + i);
  }
}

template <typename T>
void gate_residual(const GateResidualRow<T>& row, T* HWY_RESTRICT out) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= row.width; i += lanes) {
    const auto gated = round_to<T>(d, hn::Mul(hn::LoadU(d, row.gate + i), load(d, row.y + i)));
    store(d, hn::Add(load(d, row.x + i), gated), out + i);
  }
  for (; i < row.width; ++i)
    store_one(load_one(row.x + i) + round_one(row.gate[i] * load_one(row.y + i), row.y), out + i);
}

// 0.5·x·(1 + tanh u) = x / (1 + exp(−2u)), u = √(2/π)·(x + 0.044715·x³). The exponent is held below the overflow of
// exp.
HWY_INLINE V32 gelu(D32 d, V32 x) {
  const auto cubic = hn::MulAdd(hn::Mul(hn::Mul(x, x), x), hn::Set(d, 0.044715f), x);
  const auto exponent = hn::Min(hn::Mul(cubic, hn::Set(d, -1.5957691216057308f)), hn::Set(d, 88.0f));
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), hn::Exp(d, exponent)));
}

template <typename T>
void gelu_tanh(const T* HWY_RESTRICT x, T* HWY_RESTRICT out, size_t count) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < count; i += lanes) {
    const size_t n = HWY_MIN(lanes, count - i);
    store(d, gelu(d, load(d, x + i, n)), out + i, n);
  }
}

template <typename T>
void norm_rotate(const T* HWY_RESTRICT x, const NormRotateToken& token, T* HWY_RESTRICT out) {
  const D32 d;
  const size_t width = token.width;
  for (size_t head = 0; head < token.heads; ++head, x += width, out += token.out_stride) {
    const float rstd = reciprocal_rms(d, x, width);
    size_t i = 0;
#if HWY_TARGET != HWY_SCALAR  // one lane holds no pair
    const auto rstd_v = hn::Set(d, rstd);
    for (const size_t lanes = hn::Lanes(d); i + lanes <= width; i += lanes) {
      const auto normed = hn::Mul(hn::Mul(load(d, x + i), rstd_v), hn::LoadU(d, token.scale + i));
      const auto v = round_to<T>(d, normed);
      const auto turned = hn::Mul(hn::Shuffle2301(v), hn::LoadU(d, token.sine + i));
      store(d, hn::MulAdd(v, hn::LoadU(d, token.cosine + i), turned), out + i);
    }
#endif
    for (; i < width; i += 2) {
      const float a = round_one(load_one(x + i) * rstd * token.scale[i], x);
      const float b = round_one(load_one(x + i + 1) * rstd * token.scale[i + 1], x);
      store_one(a * token.cosine[i] + b * token.sine[i], out + i);
      store_one(b * token.cosine[i + 1] + a * token.sine[i + 1], out + i + 1);
    }
  }
}

template <typename T>
SoftmaxStep softmax(const float* HWY_RESTRICT scores, size_t count, float scale, float previous, T* HWY_RESTRICT out) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  auto maxima = hn::Set(d, -HUGE_VALF);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) maxima = hn::Max(maxima, hn::LoadU(d, scores + i));
  float maximum = hn::GetLane(hn::MaxOfLanes(d, maxima));
  for (; i < count; ++i) maximum = HWY_MAX(maximum, scores[i]);
  maximum = HWY_MAX(maximum * scale, previous);

  auto sums = hn::Zero(d);
  const auto scale_v = hn::Set(d, scale), maximum_v = hn::Set(d, maximum);
  for (i = 0; i + lanes <= count; i += lanes) {
    const auto e = hn::Exp(d, hn::MulSub(hn::LoadU(d, scores + i), scale_v, maximum_v));
    sums = hn::Add(sums, e);
    store(d, e, out + i);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) {
    const float e = std::exp(scores[i] * scale - maximum);
    sum += e;
    store_one(e, out + i);
  }
  return {maximum, sum, std::exp(previous - maximum)};
}

template <typename T>
void scale_to(const float* x, float factor, size_t count, T* out) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) store(d, hn::Mul(hn::LoadU(d, x + i), hn::Set(d, factor)), out + i);
  for (; i < count; ++i) store_one(x[i] * factor, out + i);
}

void Interleave(const uint16_t* HWY_RESTRICT first, const uint16_t* HWY_RESTRICT second, size_t count,
                uint16_t* HWY_RESTRICT out) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<uint16_t> d;
  const size_t lanes = hn::Lanes(d);
  for (; i + lanes <= count; i += lanes)
    hn::StoreInterleaved2(hn::LoadU(d, first + i), hn::LoadU(d, second + i), d, out + 2 * i);
#endif
  for (; i < count; ++i) {
    out[2 * i] = first[i];
    out[2 * i + 1] = second[i];
  }
}

#if HWY_TARGET != HWY_SCALAR
HWY_INLINE void transpose_square(const uint32_t* HWY_RESTRICT in, size_t ld_in, uint32_t* HWY_RESTRICT out,
                                 size_t ld_out) {
  const hn::FixedTag<uint32_t, 4> d;
  const auto a = hn::LoadU(d, in), b = hn::LoadU(d, in + ld_in), c = hn::LoadU(d, in + 2 * ld_in),
             e = hn::LoadU(d, in + 3 * ld_in);
  const auto ac = hn::InterleaveLower(d, a, c), be = hn::InterleaveLower(d, b, e);
  const auto ac_upper = hn::InterleaveUpper(d, a, c), be_upper = hn::InterleaveUpper(d, b, e);
  hn::StoreU(hn::InterleaveLower(d, ac, be), d, out);
  hn::StoreU(hn::InterleaveUpper(d, ac, be), d, out + ld_out);
  hn::StoreU(hn::InterleaveLower(d, ac_upper, be_upper), d, out + 2 * ld_out);
  hn::StoreU(hn::InterleaveUpper(d, ac_upper, be_upper), d, out + 3 * ld_out);
}
#endif

// Squares of four by four; sixteen of them touch no more lines than the first-level cache holds.
void Transpose(const uint32_t* HWY_RESTRICT in, const Transposition& t, uint32_t* HWY_RESTRICT out) {
  constexpr size_t kSquare = 16;
  for (size_t r0 = 0; r0 < t.rows; r0 += kSquare) {
    for (size_t c0 = 0; c0 < t.columns; c0 += kSquare) {
      const size_t r_end = HWY_MIN(r0 + kSquare, t.rows), c_end = HWY_MIN(c0 + kSquare, t.columns);
      for (size_t c = c0; c < c_end; c += 4) {
        for (size_t r = r0; r < r_end; r += 4) {
#if HWY_TARGET != HWY_SCALAR
          if (r + 4 <= r_end && c + 4 <= c_end) {
            transpose_square(in + r * t.ld_in + c, t.ld_in, out + c * t.ld_out + r, t.ld_out);
            continue;
          }
#endif
          for (size_t i = c; i < HWY_MIN(c + 4, c_end); ++i)
            for (size_t j = r; j < HWY_MIN(r + 4, r_end); ++j) out[i * t.ld_out + j] = in[j * t.ld_in + i];
        }
      }
    }
  }
}

void NormModulateF32(const float* x, const NormModulateRow& row, float* out) { norm_modulate(x, row, out); }
void NormModulateB16(const uint16_t* x, const NormModulateRow& row, uint16_t* out) { norm_modulate(x, row, out); }
void GateResidualF32(const GateResidualRow<float>& row, float* out) { gate_residual(row, out); }
void GateResidualB16(const GateResidualRow<uint16_t>& row, uint16_t* out) { gate_residual(row, out); }
void GeluF32(const float* x, float* out, size_t count) { gelu_tanh(x, out, count); }
void GeluB16(const uint16_t* x, uint16_t* out, size_t count) { gelu_tanh(x, out, count); }
void NormRotateF32(const float* x, const NormRotateToken& token, float* out) { norm_rotate(x, token, out); }
void NormRotateB16(const uint16_t* x, const NormRotateToken& token, uint16_t* out) { norm_rotate(x, token, out); }

SoftmaxStep SoftmaxF32(const float* scores, size_t count, float scale, float previous, float* out) {
  return softmax(scores, count, scale, previous, out);
}
SoftmaxStep SoftmaxB16(const float* scores, size_t count, float scale, float previous, uint16_t* out) {
  return softmax(scores, count, scale, previous, out);
}
void ScaleF32(const float* x, float factor, size_t count, float* out) { scale_to(x, factor, count, out); }
void ScaleB16(const float* x, float factor, size_t count, uint16_t* out) { scale_to(x, factor, count, out); }

}  // namespace calotype::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace calotype::kernels {

HWY_EXPORT(NormModulateF32);
HWY_EXPORT(NormModulateB16);
HWY_EXPORT(GateResidualF32);
HWY_EXPORT(GateResidualB16);
HWY_EXPORT(GeluF32);
HWY_EXPORT(GeluB16);
HWY_EXPORT(NormRotateF32);
HWY_EXPORT(NormRotateB16);
HWY_EXPORT(SoftmaxF32);
HWY_EXPORT(SoftmaxB16);
HWY_EXPORT(ScaleF32);
HWY_EXPORT(ScaleB16);
HWY_EXPORT(Interleave);
HWY_EXPORT(Transpose);

void norm_modulate_row(const float* x, const NormModulateRow& row, float* out) {
  HWY_DYNAMIC_DISPATCH(NormModulateF32)(x, row, out);
}
void norm_modulate_row(const uint16_t* x, const NormModulateRow& row, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(NormModulateB16)(x, row, out);
}
void gate_residual_row(const GateResidualRow<float>& row, float* out) {
  HWY_DYNAMIC_DISPATCH(GateResidualF32)(row, out);
}
void gate_residual_row(const GateResidualRow<uint16_t>& row, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(GateResidualB16)(row, out);
}
void gelu_tanh_row(const float* x, float* out, size_t count) { HWY_DYNAMIC_DISPATCH(GeluF32)(x, out, count); }
void gelu_tanh_row(const uint16_t* x, uint16_t* out, size_t count) { HWY_DYNAMIC_DISPATCH(GeluB16)(x, out, count); }
void norm_rotate_token(const float* x, const NormRotateToken& token, float* out) {
  HWY_DYNAMIC_DISPATCH(NormRotateF32)(x, token, out);
}
void norm_rotate_token(const uint16_t* x, const NormRotateToken& token, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(NormRotateB16)(x, token, out);
}

SoftmaxStep softmax_row(const float* scores, size_t count, float scale, float previous_maximum, float* out) {
  return HWY_DYNAMIC_DISPATCH(SoftmaxF32)(scores, count, scale, previous_maximum, out);
}
SoftmaxStep softmax_row(const float* scores, size_t count, float scale, float previous_maximum, uint16_t* out) {
  return HWY_DYNAMIC_DISPATCH(SoftmaxB16)(scores, count, scale, previous_maximum, out);
}
void scale_row(float* x, float factor, size_t count) { HWY_DYNAMIC_DISPATCH(ScaleF32)(x, factor, count, x); }
void scale_row_to(const float* x, float factor, size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(ScaleF32)(x, factor, count, out);
}
void scale_row_to(const float* x, float factor, size_t count, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(ScaleB16)(x, factor, count, out);
}
void interleave_row(const uint16_t* first, const uint16_t* second, size_t count, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(Interleave)(first, second, count, out);
}
void transpose(const uint32_t* in, const Transposition& shape, uint32_t* out) {
  HWY_DYNAMIC_DISPATCH(Transpose)(in, shape, out);
}

}  // namespace calotype::kernels
#endif
