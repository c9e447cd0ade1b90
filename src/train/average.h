// Exponential moving averages of the trained tensors, which make better pictures than the tensors themselves.
//
//   Average average(parameters, {.decay = 0.99});
//   optimizer->step(rate); average.update();
//   { const auto swapped = average.swap(); preview(); save(); }     // the model is the average inside the braces
//
// One thread at a time.
#pragma once

#include "train/optimizer.h"

namespace calotype::train {

struct AverageOptions {
  double decay = 0.99;  ///< weight of the past in each update, 0 to below 1; about 1 / (1 − decay) steps are remembered
  bool warm_up = false;  ///< decay is at most (1 + s) / (10 + s) in update s = 0, 1, …, as in TensorFlow's averages
};

class Average {
 public:
  /// Starts as a copy of the values. Error bad_input for a decay out of range.
  Average(const Parameters& parameters, AverageOptions options);

  /// average += (1 − decay) · (value − average). Not while swapped.
  void update();

  /// The parameters hold the averages, and the averages the parameters, until the object is gone; then both are as
  /// before, bit for bit. Costs one pass over memory each way and room for the largest tensor.
  class [[nodiscard]] Swap {
   public:
    explicit Swap(Average& average);
    ~Swap();
    Swap(const Swap&) = delete;
    Swap& operator=(const Swap&) = delete;

   private:
    Average& average_;
  };
  Swap swap() { return Swap(*this); }

  /// "<name>" as the parameter and "updates" i64. The tensors are the object's own: update() changes them. Not while
  /// swapped.
  OptimizerState state() const;
  /// Copies in what state() gave. Error conflict when a tensor is missing, unknown or of another shape.
  void load(const OptimizerState& saved);

 private:
  void exchange();

  AverageOptions options_;
  Parameters parameters_;
  std::vector<at::Tensor> averages_;
  at::Tensor updates_;
  bool swapped_ = false;
};

}  // namespace calotype::train
