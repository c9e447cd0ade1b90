// AdamW (Loshchilov & Hutter, arXiv 1711.05101), the arithmetic of torch.optim.AdamW.
#pragma once

#include "train/optimizer.h"

namespace calotype::train {

class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerOptions& options, const Parameters& parameters);
  void step(double learning_rate) override;
  /// "<name>.step" f32, "<name>.exp_avg" and "<name>.exp_avg_sq", PyTorch's words.
  OptimizerState state() const override;

 private:
  OptimizerOptions options_;
  Parameters parameters_;
  std::vector<at::Tensor> steps_, means_, squares_;
};

}  // namespace calotype::train
