// Gradients of the fused ops on CPU tensors of f32 or bf16 (fused_ops.h documents the ops and shapes). Activations'
// gradients have the activations' type; those of parameters are summed in f32 and then get the parameter's type.
// Thread-safe; no result depends on the number of threads.
#pragma once

#include "kernels/fused_ops.h"

namespace calotype::kernels::cpu {

/// Gradients that nobody wants stay undefined.
struct Wanted {
  bool activations = true, parameters = true;
};

struct NormModulateGradients {
  Tensor x_BLD, shift_BD, scale_BD;
};
/// shift_BD is f32.
NormModulateGradients norm_modulate_backward(const Tensor& grad_BLD, const Tensor& x_BLD, const Tensor& scale_BD,
                                             Wanted wanted);

struct GateResidualGradients {
  Tensor gate_BD, y_BLD;  ///< x's is the incoming gradient itself
};
GateResidualGradients gate_residual_backward(const Tensor& grad_BLD, const Tensor& gate_BD, const Tensor& y_BLD,
                                             Wanted wanted);

Tensor gelu_tanh_backward(const Tensor& grad, const Tensor& x);

/// Of mlp; `grad_BNM` may be strided rows.
Tensor gelu_rows_backward(const Tensor& grad_BNM, const Tensor& mlp_BNM);

/// One QkvStream of gradients per stream.
std::vector<QkvStream> qk_norm_rope_backward(const Heads& grad, const std::vector<QkvStream>& streams,
                                             const RotaryTable& table);

}  // namespace calotype::kernels::cpu
