// AdamW whose two averages are kept in 8 bits each: 2.03 bytes a number instead of 8 (Dettmers et al., arXiv
// 2110.02861; the arithmetic of bitsandbytes' AdamW8bit).
//
// A block of 256 numbers shares an f32 scale, its largest magnitude; the number itself is the nearest of 256 values in
// −1 … 1 that lie closer together near zero. Tensors below 4096 numbers keep f32 averages, as there.
#pragma once

#include "train/adamw.h"

namespace calotype::train {

class AdamW8bit : public Optimizer {
 public:
  AdamW8bit(const OptimizerOptions& options, const Parameters& parameters);
  void step(double learning_rate) override;
  /// "<name>.step" i64, "<name>.exp_avg" and "<name>.exp_avg_sq" u8 [blocks, 256], each with "….scale" f32 [blocks];
  /// small tensors: AdamW's.
  OptimizerState state() const override;

 private:
  struct Codes {
    at::Tensor codes, scales;
  };
  struct Large {
    Parameter parameter;
    at::Tensor step;
    Codes mean, square;
  };
  void update(const Large& tensor, double learning_rate) const;

  OptimizerOptions options_;
  AdamW small_;
  std::vector<Large> large_;
  at::Tensor mean_table_, square_table_, mean_borders_, square_borders_;
};

/// The 256 values of a code, ascending: seven decades, each with twice the values of the one below, evenly spaced.
std::vector<float> dynamic_code(bool with_sign);

/// How many of 255 ascending `borders` lie below each of `values` (f32, contiguous), into `codes` (u8, contiguous):
/// what at::bucketize counts.
void nearest_codes(const at::Tensor& values, const at::Tensor& borders, const at::Tensor& codes);

}  // namespace calotype::train
