#include "kernels/fused_rows_backward.h"

#include "kernels/fused_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/fused_rows_backward.cpp"
#include <hwy/foreach_target.h>
// Highway wants its own headers after foreach_target.h.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "kernels/simd_numbers-inl.h"

HWY_BEFORE_NAMESPACE();
namespace calotype::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// With g = grad · one_plus_scale: dx = rstd · (g − mean(g) − n · mean(g · n)).
template <typename T>
void norm_input_gradient(const NormGradientRow<T>& row, const float* HWY_RESTRICT one_plus_scale, T* HWY_RESTRICT out) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  const auto mean = hn::Set(d, row.moments.mean), rstd = hn::Set(d, row.moments.rstd);
  auto sum_g = hn::Zero(d), sum_gn = hn::Zero(d);
  for (size_t i = 0; i < row.width; i += lanes) {
    const size_t n = HWY_MIN(lanes, row.width - i);
    const auto g = hn::Mul(load(d, row.grad + i, n), load(d, one_plus_scale + i, n));  // zero behind the end
    sum_g = hn::Add(sum_g, g);
    sum_gn = hn::MulAdd(g, hn::Mul(hn::Sub(load(d, row.x + i, n), mean), rstd), sum_gn);
  }
  const auto mean_g = hn::Set(d, total(d, sum_g) / static_cast<float>(row.width));
  const auto mean_gn = hn::Set(d, total(d, sum_gn) / static_cast<float>(row.width));
  for (size_t i = 0; i < row.width; i += lanes) {
    const size_t n = HWY_MIN(lanes, row.width - i);
    const auto g = hn::Mul(load(d, row.grad + i, n), load(d, one_plus_scale + i, n));
    const auto normed = hn::Mul(hn::Sub(load(d, row.x + i, n), mean), rstd);
    store(d, hn::Mul(rstd, hn::NegMulAdd(normed, mean_gn, hn::Sub(g, mean_g))), out + i, n);
  }
}

template <typename T>
void norm_parameter_gradient(const NormGradientRow<T>& row, float* HWY_RESTRICT d_shift, float* HWY_RESTRICT d_scale) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  const auto mean = hn::Set(d, row.moments.mean), rstd = hn::Set(d, row.moments.rstd);
  for (size_t i = 0; i < row.width; i += lanes) {
    const size_t n = HWY_MIN(lanes, row.width - i);
    const auto grad = load(d, row.grad + i, n);
    const auto normed = hn::Mul(hn::Sub(load(d, row.x + i, n), mean), rstd);
    store(d, hn::Add(load(d, d_shift + i, n), grad), d_shift + i, n);
    store(d, hn::MulAdd(grad, normed, load(d, d_scale + i, n)), d_scale + i, n);
  }
}

template <typename T>
void multiply(const T* HWY_RESTRICT x, const float* HWY_RESTRICT factor, size_t count, T* HWY_RESTRICT out) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < count; i += lanes) {
    const size_t n = HWY_MIN(lanes, count - i);
    store(d, hn::Mul(load(d, x + i, n), load(d, factor + i, n)), out + i, n);
  }
}

template <typename T>
void add_product(const T* HWY_RESTRICT x, const T* HWY_RESTRICT y, size_t count, float* HWY_RESTRICT sum) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < count; i += lanes) {
    const size_t n = HWY_MIN(lanes, count - i);
    store(d, hn::MulAdd(load(d, x + i, n), load(d, y + i, n), load(d, sum + i, n)), sum + i, n);
  }
}

// gelu = x·s with s = 1 / (1 + exp(−2u)), u = √(2/π)·(x + 0.044715·x³); so gelu′ = s + x·s·(1 − s)·2u′.
HWY_INLINE V32 gelu_slope(D32 d, V32 x) {
  const auto one = hn::Set(d, 1.0f), two_root = hn::Set(d, 1.5957691216057308f);
  const auto square = hn::Mul(x, x);
  const auto twice_u = hn::Mul(hn::Mul(hn::MulAdd(square, hn::Set(d, 0.044715f), one), x), two_root);
  const auto s = hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(twice_u), hn::Set(d, 88.0f)))));
  const auto slope = hn::Mul(hn::MulAdd(square, hn::Set(d, 0.134145f), one), two_root);
  return hn::MulAdd(hn::Mul(hn::Mul(s, hn::Sub(one, s)), x), slope, s);
}

template <typename T>
void gelu_tanh_gradient(const T* HWY_RESTRICT x, const T* HWY_RESTRICT grad, size_t count, T* HWY_RESTRICT out) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  // Beyond ±30 the slope is 0 or 1 to the last bit, and x³ cannot overflow.
  const auto high = hn::Set(d, 30.0f), low = hn::Set(d, -30.0f);
  for (size_t i = 0; i < count; i += lanes) {
    const size_t n = HWY_MIN(lanes, count - i);
    const auto held = hn::Max(hn::Min(load(d, x + i, n), high), low);
    store(d, hn::Mul(load(d, grad + i, n), gelu_slope(d, held)), out + i, n);
  }
}

/// The gradient before the rotation: out0 = x0·c − x1·s and out1 = x1·c + x0·s give dx0 = c·d0 + s·d1, dx1 = c·d1 −
/// s·d0.
template <typename T>
HWY_INLINE V32 turned_back(D32 d, const T* grad, const NormRotateGradientToken& token, size_t i, size_t n) {
  const auto cosine = load(d, token.cosine + i, n), sine = load(d, token.sine + i, n);
  const auto g = load(d, grad + i, n);
#if HWY_TARGET == HWY_SCALAR  // one lane holds no pair
  const auto partner = load(d, grad + (i ^ 1), n);
#else
  const auto partner = hn::Shuffle2301(g);
#endif
  return hn::NegMulAdd(partner, sine, hn::Mul(g, cosine));
}

template <typename T>
void norm_rotate_gradient(const T* HWY_RESTRICT x, const T* HWY_RESTRICT grad, const NormRotateGradientToken& token,
                          T* HWY_RESTRICT out) {
  const D32 d;
  const size_t lanes = hn::Lanes(d), width = token.width;
  HWY_ALIGN float turned[kMaxHeadWidth];
  for (size_t head = 0; head < token.heads; ++head, x += width, out += width, grad += token.grad_stride) {
    const float rstd = reciprocal_rms(d, x, width);
    const auto rstd_v = hn::Set(d, rstd);
    auto sum = hn::Zero(d);
    for (size_t i = 0; i < width; i += lanes) {
      const size_t n = HWY_MIN(lanes, width - i);
      const auto g = turned_back(d, grad, token, i, n);
      const auto normed = hn::Mul(load(d, x + i, n), rstd_v);
      store(d, hn::MulAdd(g, normed, load(d, token.d_scale + i, n)), token.d_scale + i, n);
      const auto scaled = hn::Mul(g, load(d, token.scale + i, n));
      store(d, scaled, turned + i, n);
      sum = hn::MulAdd(scaled, normed, sum);
    }
    const auto mean = hn::Set(d, total(d, sum) / static_cast<float>(width));
    for (size_t i = 0; i < width; i += lanes) {
      const size_t n = HWY_MIN(lanes, width - i);
      const auto normed = hn::Mul(load(d, x + i, n), rstd_v);
      store(d, hn::Mul(rstd_v, hn::NegMulAdd(normed, mean, load(d, turned + i, n))), out + i, n);
    }
  }
}

template <typename T>
void softmax_gradient(const SoftmaxGradientRow& row, T* HWY_RESTRICT probabilities, T* HWY_RESTRICT d_scores) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  const auto scale = hn::Set(d, row.scale);
  for (size_t i = 0; i < row.count; i += lanes) {
    const size_t n = HWY_MIN(lanes, row.count - i);
    const auto p = hn::Exp(d, hn::MulSub(load(d, row.scores + i, n), scale, load(d, row.log_sum_exp + i, n)));
    const auto centred = hn::Sub(load(d, row.grad + i, n), load(d, row.delta + i, n));
    store(d, p, probabilities + i, n);
    store(d, hn::Mul(hn::Mul(p, scale), centred), d_scores + i, n);
  }
}

template <typename T>
float dot(const T* HWY_RESTRICT x, const T* HWY_RESTRICT y, size_t count) {
  const D32 d;
  const size_t lanes = hn::Lanes(d);
  auto sum = hn::Zero(d);
  for (size_t i = 0; i < count; i += lanes) {
    const size_t n = HWY_MIN(lanes, count - i);
    sum = hn::MulAdd(load(d, x + i, n), load(d, y + i, n), sum);
  }
  return total(d, sum);
}

RowMoments MomentsF32(const float* x, size_t width) {
  const auto m = mean_and_rstd(D32(), x, width);
  return {m.mean, m.rstd};
}
RowMoments MomentsB16(const uint16_t* x, size_t width) {
  const auto m = mean_and_rstd(D32(), x, width);
  return {m.mean, m.rstd};
}
void NormInputF32(const NormGradientRow<float>& row, const float* scale, float* out) {
  norm_input_gradient(row, scale, out);
}
void NormInputB16(const NormGradientRow<uint16_t>& row, const float* scale, uint16_t* out) {
  norm_input_gradient(row, scale, out);
}
void NormParameterF32(const NormGradientRow<float>& row, float* d_shift, float* d_scale) {
  norm_parameter_gradient(row, d_shift, d_scale);
}
void NormParameterB16(const NormGradientRow<uint16_t>& row, float* d_shift, float* d_scale) {
  norm_parameter_gradient(row, d_shift, d_scale);
}
void MultiplyF32(const float* x, const float* factor, size_t count, float* out) { multiply(x, factor, count, out); }
void MultiplyB16(const uint16_t* x, const float* factor, size_t count, uint16_t* out) {
  multiply(x, factor, count, out);
}
void AddProductF32(const float* x, const float* y, size_t count, float* sum) { add_product(x, y, count, sum); }
void AddProductB16(const uint16_t* x, const uint16_t* y, size_t count, float* sum) { add_product(x, y, count, sum); }
void GeluGradientF32(const float* x, const float* grad, size_t count, float* out) {
  gelu_tanh_gradient(x, grad, count, out);
}
void GeluGradientB16(const uint16_t* x, const uint16_t* grad, size_t count, uint16_t* out) {
  gelu_tanh_gradient(x, grad, count, out);
}
void NormRotateGradientF32(const float* x, const float* grad, const NormRotateGradientToken& token, float* out) {
  norm_rotate_gradient(x, grad, token, out);
}
void NormRotateGradientB16(const uint16_t* x, const uint16_t* grad, const NormRotateGradientToken& token,
                           uint16_t* out) {
  norm_rotate_gradient(x, grad, token, out);
}
void SoftmaxGradientF32(const SoftmaxGradientRow& row, float* probabilities, float* d_scores) {
  softmax_gradient(row, probabilities, d_scores);
}
void SoftmaxGradientB16(const SoftmaxGradientRow& row, uint16_t* probabilities, uint16_t* d_scores) {
  softmax_gradient(row, probabilities, d_scores);
}
float DotF32(const float* x, const float* y, size_t count) { return dot(x, y, count); }
float DotB16(const uint16_t* x, const uint16_t* y, size_t count) { return dot(x, y, count); }

}  // namespace calotype::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace calotype::kernels {

HWY_EXPORT(MomentsF32);
HWY_EXPORT(MomentsB16);
HWY_EXPORT(NormInputF32);
HWY_EXPORT(NormInputB16);
HWY_EXPORT(NormParameterF32);
HWY_EXPORT(NormParameterB16);
HWY_EXPORT(MultiplyF32);
HWY_EXPORT(MultiplyB16);
HWY_EXPORT(AddProductF32);
HWY_EXPORT(AddProductB16);
HWY_EXPORT(GeluGradientF32);
HWY_EXPORT(GeluGradientB16);
HWY_EXPORT(NormRotateGradientF32);
HWY_EXPORT(NormRotateGradientB16);
HWY_EXPORT(SoftmaxGradientF32);
HWY_EXPORT(SoftmaxGradientB16);
HWY_EXPORT(DotF32);
HWY_EXPORT(DotB16);

RowMoments norm_moments_row(const float* x, size_t width) { return HWY_DYNAMIC_DISPATCH(MomentsF32)(x, width); }
RowMoments norm_moments_row(const uint16_t* x, size_t width) { return HWY_DYNAMIC_DISPATCH(MomentsB16)(x, width); }
void norm_input_gradient_row(const NormGradientRow<float>& row, const float* one_plus_scale, float* out) {
  HWY_DYNAMIC_DISPATCH(NormInputF32)(row, one_plus_scale, out);
}
void norm_input_gradient_row(const NormGradientRow<uint16_t>& row, const float* one_plus_scale, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(NormInputB16)(row, one_plus_scale, out);
}
void norm_parameter_gradient_row(const NormGradientRow<float>& row, float* d_shift, float* d_scale) {
  HWY_DYNAMIC_DISPATCH(NormParameterF32)(row, d_shift, d_scale);
}
void norm_parameter_gradient_row(const NormGradientRow<uint16_t>& row, float* d_shift, float* d_scale) {
  HWY_DYNAMIC_DISPATCH(NormParameterB16)(row, d_shift, d_scale);
}
void multiply_row(const float* x, const float* factor, size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(MultiplyF32)(x, factor, count, out);
}
void multiply_row(const uint16_t* x, const float* factor, size_t count, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(MultiplyB16)(x, factor, count, out);
}
void add_product_row(const float* x, const float* y, size_t count, float* sum) {
  HWY_DYNAMIC_DISPATCH(AddProductF32)(x, y, count, sum);
}
void add_product_row(const uint16_t* x, const uint16_t* y, size_t count, float* sum) {
  HWY_DYNAMIC_DISPATCH(AddProductB16)(x, y, count, sum);
}
void gelu_tanh_gradient_row(const float* x, const float* grad, size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(GeluGradientF32)(x, grad, count, out);
}
void gelu_tanh_gradient_row(const uint16_t* x, const uint16_t* grad, size_t count, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(GeluGradientB16)(x, grad, count, out);
}
void norm_rotate_gradient_token(const float* x, const float* grad, const NormRotateGradientToken& token, float* out) {
  HWY_DYNAMIC_DISPATCH(NormRotateGradientF32)(x, grad, token, out);
}
void norm_rotate_gradient_token(const uint16_t* x, const uint16_t* grad, const NormRotateGradientToken& token,
                                uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(NormRotateGradientB16)(x, grad, token, out);
}
void softmax_gradient_row(const SoftmaxGradientRow& row, float* probabilities, float* d_scores) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradientF32)(row, probabilities, d_scores);
}
void softmax_gradient_row(const SoftmaxGradientRow& row, uint16_t* probabilities, uint16_t* d_scores) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradientB16)(row, probabilities, d_scores);
}
float dot_row(const float* x, const float* y, size_t count) { return HWY_DYNAMIC_DISPATCH(DotF32)(x, y, count); }
float dot_row(const uint16_t* x, const uint16_t* y, size_t count) { return HWY_DYNAMIC_DISPATCH(DotB16)(x, y, count); }

}  // namespace calotype::kernels
#endif
