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

/// Calls step(i, place, n) for the vectors of a run: `n` numbers at i, whose coefficients lie at `place`. The step must
/// be inlined, which makes n a constant in all whole vectors.
template <typename Step>
HWY_INLINE void walk(D32 d, size_t count, size_t period, const Step& step) {
  const size_t lanes = hn::Lanes(d);
  for (size_t begin = 0; begin < count; begin += period) {
    const size_t numbers = HWY_MIN(period, count - begin);
    size_t place = 0;
    for (; place + lanes <= numbers; place += lanes) step(begin + place, place, lanes);
    if (place < numbers) step(begin + place, place, numbers - place);
  }
}
#define CALOTYPE_STEP [&](size_t i, size_t place, size_t n) HWY_ATTR __attribute__((always_inline))

/// v, with zeros behind its first n numbers.
HWY_INLINE V32 only_first(D32 d, V32 v, size_t n) {
  return n == hn::Lanes(d) ? v : hn::IfThenElseZero(hn::FirstN(d, n), v);
}

HWY_INLINE void add_to(D32 d, float* sum, V32 v) { store(d, hn::Add(load(d, sum), v), sum); }

template <typename T>
void add_run(const T* HWY_RESTRICT x, size_t count, size_t period, float* HWY_RESTRICT sum) {
  const D32 d;
  walk(
      d, count, period, CALOTYPE_STEP { add_to(d, sum + place, load(d, x + i, n)); });
}

template <typename T>
void add_squares(const T* HWY_RESTRICT x, size_t count, const PeriodicNorm& norm, float* HWY_RESTRICT sum) {
  const D32 d;
  const PeriodicNorm c = norm;
  walk(
      d, count, c.period, CALOTYPE_STEP {
        const auto centred = only_first(d, hn::Sub(load(d, x + i, n), load(d, c.mean + place)), n);
        store(d, hn::MulAdd(centred, centred, load(d, sum + place)), sum + place);
      });
}

HWY_INLINE V32 sigmoid(D32 d, V32 h) {
  const auto one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(h), hn::Set(d, 88.0f)))));
}

template <typename T>
void norm_silu(const T* HWY_RESTRICT x, size_t count, const PeriodicNorm& norm, T* HWY_RESTRICT out) {
  const D32 d;
  const PeriodicNorm c = norm;
  walk(
      d, count, c.period, CALOTYPE_STEP {
        const auto centred = hn::Sub(load(d, x + i, n), load(d, c.mean + place));
        const auto h = round_to<T>(d, hn::MulAdd(centred, load(d, c.factor + place), load(d, c.bias + place)));
        store(d, hn::Mul(h, sigmoid(d, h)), out + i, n);
      });
}

// silu′(h) = σ(h) · (1 + h · (1 − σ(h))). Behind the end the incoming gradient and hence d_h are zero.
template <typename T>
void gradient_sums(const T* HWY_RESTRICT x, const T* HWY_RESTRICT grad, size_t count, const PeriodicNorm& norm,
                   const PeriodicSums& to, T* HWY_RESTRICT d_h) {
  const D32 d;
  const PeriodicNorm c = norm;
  const PeriodicSums sums = to;
  const auto one = hn::Set(d, 1.0f);
  walk(
      d, count, c.period, CALOTYPE_STEP {
        const auto centred = hn::Sub(load(d, x + i, n), load(d, c.mean + place));
        const auto h = hn::MulAdd(centred, load(d, c.factor + place), load(d, c.bias + place));
        const auto sigma = sigmoid(d, h);
        const auto slope = hn::Mul(sigma, hn::MulAdd(h, hn::Sub(one, sigma), one));
        const auto g = hn::Mul(load(d, grad + i, n), slope);
        store(d, g, d_h + i, n);
        add_to(d, sums.d_bias + place, g);
        store(d, hn::MulAdd(g, centred, load(d, sums.d_centred + place)), sums.d_centred + place);
      });
}

template <typename T>
void input_gradient(const T* HWY_RESTRICT x, size_t count, const PeriodicNorm& norm, const PeriodicLine& line,
                    T* HWY_RESTRICT d_h) {
  const D32 d;
  const PeriodicNorm c = norm;
  const PeriodicLine l = line;
  walk(
      d, count, c.period, CALOTYPE_STEP {
        const auto centred = hn::Sub(load(d, x + i, n), load(d, c.mean + place));
        const auto rest = hn::MulAdd(centred, load(d, l.slope + place), load(d, l.offset + place));
        store(d, hn::MulAdd(load(d, d_h + i, n), load(d, c.factor + place), rest), d_h + i, n);
      });
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
void SumsF32(const float* x, const float* grad, size_t count, const PeriodicNorm& norm, const PeriodicSums& sums,
             float* d_h) {
  gradient_sums(x, grad, count, norm, sums, d_h);
}
void SumsB16(const uint16_t* x, const uint16_t* grad, size_t count, const PeriodicNorm& norm, const PeriodicSums& sums,
             uint16_t* d_h) {
  gradient_sums(x, grad, count, norm, sums, d_h);
}
void InputF32(const float* x, size_t count, const PeriodicNorm& norm, const PeriodicLine& line, float* d_h) {
  input_gradient(x, count, norm, line, d_h);
}
void InputB16(const uint16_t* x, size_t count, const PeriodicNorm& norm, const PeriodicLine& line, uint16_t* d_h) {
  input_gradient(x, count, norm, line, d_h);
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
HWY_EXPORT(InputF32);
HWY_EXPORT(InputB16);

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
void norm_silu_gradient_sums(const float* x, const float* grad, size_t count, const PeriodicNorm& norm,
                             const PeriodicSums& sums, float* d_h) {
  HWY_DYNAMIC_DISPATCH(SumsF32)(x, grad, count, norm, sums, d_h);
}
void norm_silu_gradient_sums(const uint16_t* x, const uint16_t* grad, size_t count, const PeriodicNorm& norm,
                             const PeriodicSums& sums, uint16_t* d_h) {
  HWY_DYNAMIC_DISPATCH(SumsB16)(x, grad, count, norm, sums, d_h);
}
void norm_input_gradient_run(const float* x, size_t count, const PeriodicNorm& norm, const PeriodicLine& line,
                             float* d_h) {
  HWY_DYNAMIC_DISPATCH(InputF32)(x, count, norm, line, d_h);
}
void norm_input_gradient_run(const uint16_t* x, size_t count, const PeriodicNorm& norm, const PeriodicLine& line,
                             uint16_t* d_h) {
  HWY_DYNAMIC_DISPATCH(InputB16)(x, count, norm, line, d_h);
}

}  // namespace calotype::kernels
#endif
