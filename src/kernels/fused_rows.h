// SIMD inner loops of the fused ops, on plain pointers; fused_ops_cpu.cpp walks tensors and spreads rows over threads.
//
// T is float or BFloat16 bits (uint16_t). Arithmetic is f32 with a rounding to T wherever the unfused chain stores a T.
// The widest instruction set of the machine is chosen at run time (Highway). Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace calotype::kernels {

/// out[i] = (1 + scale[i]) · norm(x)[i] + shift[i] over one row of `width` numbers.
/// `one_plus_scale` and `shift` are f32 copies, already rounded to T.
struct NormModulateRow {
  const float* one_plus_scale;
  const float* shift;
  size_t width;
};
void norm_modulate_row(const float* x, const NormModulateRow& row, float* out);
void norm_modulate_row(const uint16_t* x, const NormModulateRow& row, uint16_t* out);

/// out[i] = x[i] + gate[i] · y[i].
template <typename T>
struct GateResidualRow {
  const T* x;
  const float* gate;
  const T* y;
  size_t width;
};
void gate_residual_row(const GateResidualRow<float>& row, float* out);
void gate_residual_row(const GateResidualRow<uint16_t>& row, uint16_t* out);

void gelu_tanh_row(const float* x, float* out, size_t count);
void gelu_tanh_row(const uint16_t* x, uint16_t* out, size_t count);

/// RMS-normalises and rotates `heads` head vectors of one token. Vectors of `width` numbers (even, at most
/// kMaxHeadWidth) follow each other at x; they are written `out_stride` numbers apart. `cosine` and `sine` hold one
/// value per number: cos twice per pair, sine as (−sin, +sin).
inline constexpr size_t kMaxHeadWidth = 512;
struct NormRotateToken {
  const float* scale;
  const float* cosine;
  const float* sine;
  size_t heads, width, out_stride;
};
void norm_rotate_token(const float* x, const NormRotateToken& token, float* out);
void norm_rotate_token(const uint16_t* x, const NormRotateToken& token, uint16_t* out);

/// One row of a running softmax: out[i] = exp(scale · scores[i] − maximum), maximum = max(previous, all scale ·
/// scores).
struct SoftmaxStep {
  float maximum;
  float sum;      ///< of this row's exponentials, before rounding to T
  float rescale;  ///< exp(previous maximum − maximum): factor for everything summed so far
};
SoftmaxStep softmax_row(const float* scores, size_t count, float scale, float previous_maximum, float* out);
SoftmaxStep softmax_row(const float* scores, size_t count, float scale, float previous_maximum, uint16_t* out);

void scale_row(float* x, float factor, size_t count);
void scale_row_to(const float* x, float factor, size_t count, float* out);
void scale_row_to(const float* x, float factor, size_t count, uint16_t* out);

/// out[c][r] = in[r][c]; rows of `in` and of `out` are ld_in and ld_out numbers apart.
struct Transposition {
  size_t rows, columns, ld_in, ld_out;
};
void transpose(const uint32_t* in, const Transposition& shape, uint32_t* out);

/// out = first[0], second[0], first[1], second[1] …
void interleave_row(const uint16_t* first, const uint16_t* second, size_t count, uint16_t* out);

}  // namespace calotype::kernels
