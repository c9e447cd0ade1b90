// Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon; the arithmetic of torch.optim.Muon with
// adjust_lr_fn="original"): a matrix moves along its Nesterov momentum with all singular values made about 1, scaled by
// sqrt(max(1, rows / columns)). Everything that is no hidden matrix gets AdamW.
#pragma once

#include "train/adamw.h"

namespace calotype::train {

class Muon : public Optimizer {
 public:
  Muon(const OptimizerOptions& options, const Parameters& parameters);
  /// Matrices move with learning_rate · muon_rate, the others with learning_rate.
  void step(double learning_rate) override;
  /// "<name>.momentum_buffer" of matrices, AdamW's for the others.
  OptimizerState state() const override;

 private:
  struct Matrix {
    Parameter parameter;
    at::Tensor momentum;
  };

  OptimizerOptions options_;
  at::ScalarType type_ = at::kFloat;
  AdamW others_;
  std::vector<Matrix> matrices_;
};

/// [rows, columns] → the same singular vectors with singular values between about 0.7 and 1.2 (five Newton–Schulz
/// steps), computed and returned in `type`.
at::Tensor orthogonalize(const at::Tensor& matrix, at::ScalarType type);

}  // namespace calotype::train
