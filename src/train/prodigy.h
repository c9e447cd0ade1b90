// AdamW that finds its own learning rate (Mishchenko & Defazio, arXiv 2306.06101; the arithmetic of prodigyopt with
// decoupled weight decay and slice_p 1).
#pragma once

#include "train/optimizer.h"

namespace calotype::train {

class Prodigy : public Optimizer {
 public:
  Prodigy(const OptimizerOptions& options, const Parameters& parameters);
  void step(double learning_rate) override;
  /// "d", "d_max", "d_numerator" f64 and "k" i64; "<name>.exp_avg", "….exp_avg_sq", "….s", "….p0" as the parameter.
  OptimizerState state() const override;

 private:
  struct Moments {
    Parameter parameter;
    at::Tensor mean, square, weighted, start;
  };
  void estimate(double numerator, double denominator);

  OptimizerOptions options_;
  std::vector<Moments> moments_;
  at::Tensor d_, d_max_, numerator_, count_;
};

}  // namespace calotype::train
