#include "kernels/group_norm_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/group_norm_rows.cpp"
#include <hwy/foreach_target.h>
// Highway wants its own headers after foreach_target.h.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "kernels/simd_numbers-inl.h"

HWY_BEFORE_NAMESPACE();
namespace calotype::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Where the vectors of a run lie: `n` numbers at i, with the coefficients at `place`.
struct PeriodicStep {
  size_t i = 0, place = 0, n;
  size_t lanes, count, period;
  HWY_INLINE PeriodicStep(D32 d, size_t count_, size_t period_)
      : n(HWY_MIN(hn::Lanes(d), count_)), lanes(hn::Lanes(d)), count(count_), period(period_) {}
  HWY_INLINE bool valid() const { return i < count; }
  HWY_INLINE void next() {
    i += lanes;
    place = place + lanes == period ? 0 : place + lanes;
    n = HWY_MIN(lanes, count - i);
  }
};

/// v, with zeros behind its first n numbers.
HWY_INLINE V32 only_first(D32 d, V32 v, size_t n) {
  return n == hn::Lanes(d) ? v : hn::IfThenElseZero(hn::FirstN(d, n), v);
}

HWY_INLINE void add_to(D32 d, float* sum, V32 v) { store(d, hn::Add(load(d, sum), v), sum); }

template <typename T>
void add_run(const T* HWY_RESTRICT x, size_t count, size_t period, float* HWY_RESTRICT sum) {
  const D32 d;
  for (PeriodicStep s(d, count, period); s.valid(); s.next()) add_to(d, sum + s.place, load(d, x + s.i, s.n));
}

template <typename T>
void add_squares(const T* HWY_RESTRICT x, size_t count, const PeriodicNorm& norm, float* HWY_RESTRICT sum) {
  const D32 d;
  for (PeriodicStep s(d, count, norm.period); s.valid(); s.next()) {
    const auto centred = only_first(d, hn::Sub(load(d, x + s.i, s.n), load(d, norm.mean + s.place)), s.n);
    store(d, hn::MulAdd(centred, centred, load(d, sum + s.place)), sum + s.place);
  }
}

HWY_INLINE V32 sigmoid(D32 d, V32 h) {
  const auto one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(h), hn::Set(d, 88.0f)))));
}

template <typename T>
void norm_silu(const T* HWY_RESTRICT x, size_t count, const PeriodicNorm& norm, T* HWY_RESTRICT out) {
  const D32 d;
  for (PeriodicStep s(d, count, norm.period); s.valid(); s.next()) {
    const auto centred = hn::Sub(load(d, x + s.i, s.n), load(d, norm.mean + s.place));
    const auto h = round_to<T>(d, hn::MulAdd(centred, load(d, norm.factor + s.place), load(d, norm.bias + s.place)));
    store(d, hn::Mul(h, sigmoid(d, h)), out + s.i, s.n);
  }
}

struct CentredAndGradient {
  V32 centred, d_h;
};

/// silu′(h) = σ(h) · (1 + h · (1 − σ(h))); zero behind the first n numbers, as the incoming gradient is.
template <typename T>
HWY_INLINE CentredAndGradient gradient_of_h(D32 d, const T* x, const T* grad, const PeriodicNorm& norm,
                                            const PeriodicStep& s) {
  const auto one = hn::Set(d, 1.0f);
  const auto centred = hn::Sub(load(d, x + s.i, s.n), load(d, norm.mean + s.place));
  const auto h = hn::MulAdd(centred, load(d, norm.factor + s.place), load(d, norm.bias + s.place));
  const auto sigma = sigmoid(d, h);
  const auto slope = hn::Mul(sigma, hn::MulAdd(h, hn::Sub(one, sigma), one));
  return {centred, hn::Mul(load(d, grad + s.i, s.n), slope)};
}

template <typename T>
void add_sums(const T* HWY_RESTRICT x, const T* HWY_RESTRICT grad, size_t count, const PeriodicNorm& norm,
              PeriodicSums sums) {
  const D32 d;
  for (PeriodicStep s(d, count, norm.period); s.valid(); s.next()) {
    const CentredAndGradient g = gradient_of_h(d, x, grad, norm, s);
    add_to(d, sums.d_bias + s.place, g.d_h);
    store(d, hn::MulAdd(g.d_h, g.centred, load(d, sums.d_centred + s.place)), sums.d_centred + s.place);
  }
}

template <typename T>
void norm_silu_gradient(const T* HWY_RESTRICT x, const T* HWY_RESTRICT grad, size_t count, const PeriodicNorm& norm,
                        PeriodicLine line, T* HWY_RESTRICT out) {
  const D32 d;
  for (PeriodicStep s(d, count, norm.period); s.valid(); s.next()) {
    const CentredAndGradient g = gradient_of_h(d, x, grad, norm, s);
    const auto rest = hn::MulAdd(g.centred, load(d, line.slope + s.place), load(d, line.offset + s.place));
    store(d, hn::MulAdd(g.d_h, load(d, norm.factor + s.place), rest), out + s.i, s.n);
  }
}

void AddF32(const float* x, size_t count, size_t period, float* sum) { add_run(x, count, period, sum); }
void AddB16(const uint16_t* x, size_t count, size_t period, float* sum) { add_run(x, count, period, sum); }
void SquaresF32(const float* x, size_t count, const PeriodicNorm& norm, float* sum) {
  add_squares(x, count, norm, sum);
}
void SquaresB16(const uint16_t* x, size_t count, const PeriodicNorm& norm, float* sum) {
  add_squares(x, count, norm, sum);
}
void NormSiluF32(const float* x, size_t count, const PeriodicNorm& norm, float* out) { norm_silu(x, count, norm, out); }
void NormSiluB16(const uint16_t* x, size_t count, const PeriodicNorm& norm, uint16_t* out) {
  norm_silu(x, count, norm, out);
}
void SumsF32(const float* x, const float* grad, size_t count, const PeriodicNorm& norm, PeriodicSums sums) {
  add_sums(x, grad, count, norm, sums);
}
void SumsB16(const uint16_t* x, const uint16_t* grad, size_t count, const PeriodicNorm& norm, PeriodicSums sums) {
  add_sums(x, grad, count, norm, sums);
}
void GradientF32(const float* x, const float* grad, size_t count, const PeriodicNorm& norm, PeriodicLine line,
                 float* out) {
  norm_silu_gradient(x, grad, count, norm, line, out);
}
void GradientB16(const uint16_t* x, const uint16_t* grad, size_t count, const PeriodicNorm& norm, PeriodicLine line,
                 uint16_t* out) {
  norm_silu_gradient(x, grad, count, norm, line, out);
}

}  // namespace calotype::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace calotype::kernels {

HWY_EXPORT(AddF32);
HWY_EXPORT(AddB16);
HWY_EXPORT(SquaresF32);
HWY_EXPORT(SquaresB16);
HWY_EXPORT(NormSiluF32);
HWY_EXPORT(NormSiluB16);
HWY_EXPORT(SumsF32);
HWY_EXPORT(SumsB16);
HWY_EXPORT(GradientF32);
HWY_EXPORT(GradientB16);

void add_periodic(const float* x, size_t count, size_t period, float* sum) {
  HWY_DYNAMIC_DISPATCH(AddF32)(x, count, period, sum);
}
void add_periodic(const uint16_t* x, size_t count, size_t period, float* sum) {
  HWY_DYNAMIC_DISPATCH(AddB16)(x, count, period, sum);
}
void add_periodic_squares(const float* x, size_t count, const PeriodicNorm& norm, float* sum) {
  HWY_DYNAMIC_DISPATCH(SquaresF32)(x, count, norm, sum);
}
void add_periodic_squares(const uint16_t* x, size_t count, const PeriodicNorm& norm, float* sum) {
  HWY_DYNAMIC_DISPATCH(SquaresB16)(x, count, norm, sum);
}
void norm_silu_run(const float* x, size_t count, const PeriodicNorm& norm, float* out) {
  HWY_DYNAMIC_DISPATCH(NormSiluF32)(x, count, norm, out);
}
void norm_silu_run(const uint16_t* x, size_t count, const PeriodicNorm& norm, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(NormSiluB16)(x, count, norm, out);
}
void add_norm_silu_sums(const float* x, const float* grad, size_t count, const PeriodicNorm& norm, PeriodicSums sums) {
  HWY_DYNAMIC_DISPATCH(SumsF32)(x, grad, count, norm, sums);
}
void add_norm_silu_sums(const uint16_t* x, const uint16_t* grad, size_t count, const PeriodicNorm& norm,
                        PeriodicSums sums) {
  HWY_DYNAMIC_DISPATCH(SumsB16)(x, grad, count, norm, sums);
}
void norm_silu_gradient_run(const float* x, const float* grad, size_t count, const PeriodicNorm& norm,
                            PeriodicLine line, float* out) {
  HWY_DYNAMIC_DISPATCH(GradientF32)(x, grad, count, norm, line, out);
}
void norm_silu_gradient_run(const uint16_t* x, const uint16_t* grad, size_t count, const PeriodicNorm& norm,
                            PeriodicLine line, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(GradientB16)(x, grad, count, norm, line, out);
}

}  // namespace calotype::kernels
#endif
