// SIMD inner loops of the fused ops' gradients, on plain pointers; fused_ops_backward_cpu.cpp walks tensors and spreads
// rows over threads.
//
// T is float or BFloat16 bits (uint16_t). All arithmetic is f32 and only what is stored as T is rounded, once: a
// gradient is as exact as its inputs. Sums (`d_…`, f32) are added to. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace calotype::kernels {

/// Layer normalisation of one row x of `width` numbers, n = (x − mean)·rstd, and the gradient of what was made of it.
struct RowMoments {
  float mean, rstd;
};
RowMoments norm_moments_row(const float* x, size_t width);
RowMoments norm_moments_row(const uint16_t* x, size_t width);

template <typename T>
struct NormGradientRow {
  const T* x;
  const T* grad;
  RowMoments moments;
  size_t width;
};
/// Gradient of x where the output is one_plus_scale · n + shift.
void norm_input_gradient_row(const NormGradientRow<float>& row, const float* one_plus_scale, float* out);
void norm_input_gradient_row(const NormGradientRow<uint16_t>& row, const float* one_plus_scale, uint16_t* out);
/// d_shift += grad, d_scale += grad · n.
void norm_parameter_gradient_row(const NormGradientRow<float>& row, float* d_shift, float* d_scale);
void norm_parameter_gradient_row(const NormGradientRow<uint16_t>& row, float* d_shift, float* d_scale);

/// out[i] = x[i] · factor[i].
void multiply_row(const float* x, const float* factor, size_t count, float* out);
void multiply_row(const uint16_t* x, const float* factor, size_t count, uint16_t* out);
/// sum[i] += x[i] · y[i].
void add_product_row(const float* x, const float* y, size_t count, float* sum);
void add_product_row(const uint16_t* x, const uint16_t* y, size_t count, float* sum);

/// out[i] = grad[i] · gelu_tanh′(x[i]).
void gelu_tanh_gradient_row(const float* x, const float* grad, size_t count, float* out);
void gelu_tanh_gradient_row(const uint16_t* x, const uint16_t* grad, size_t count, uint16_t* out);

/// Gradients of norm_rotate_token: x and out hold `heads` vectors of `width` numbers side by side, those of grad are
/// `grad_stride` numbers apart. `width` is even and at most kMaxHeadWidth.
struct NormRotateGradientToken {
  const float* scale;
  const float* cosine;
  const float* sine;
  size_t heads, width, grad_stride;
  float* d_scale;
};
void norm_rotate_gradient_token(const float* x, const float* grad, const NormRotateGradientToken& token, float* out);
void norm_rotate_gradient_token(const uint16_t* x, const uint16_t* grad, const NormRotateGradientToken& token,
                                uint16_t* out);

/// One key's row of the softmax gradient over `count` queries: from scores s and the gradient g of the probabilities to
/// p = exp(scale · s − lse) and its gradient scale · p · (g − delta), both rounded to T.
struct SoftmaxGradientRow {
  const float* scores;
  const float* grad;
  const float* log_sum_exp;  ///< one per query
  const float* delta;        ///< one per query: Σ output · its gradient
  float scale;
  size_t count;
};
void softmax_gradient_row(const SoftmaxGradientRow& row, float* probabilities, float* d_scores);
void softmax_gradient_row(const SoftmaxGradientRow& row, uint16_t* probabilities, uint16_t* d_scores);

/// Σ x · y.
float dot_row(const float* x, const float* y, size_t count);
float dot_row(const uint16_t* x, const uint16_t* y, size_t count);

}  // namespace calotype::kernels
