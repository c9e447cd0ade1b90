// How gradients change the trained tensors: AdamW (f32 or 8-bit state), Prodigy, Muon.
//
//   auto optimizer = make_optimizer({.kind = OptimizerKind::adamw8bit}, parameters);
//   loss.backward();
//   optimizer->step(learning_rate(schedule, step));   // then the caller clears the gradients
//
// Same values, gradients, state and number of threads → same bits. state() and load() continue a run exactly. One
// thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace calotype::train {

/// One trained tensor.
struct Parameter {
  std::string name;
  at::Tensor value;  ///< f32, contiguous, a leaf that records gradients; updated in place
  /// A hidden layer's weight, which Muon orthogonalises; a convolution [out, in, kh, kw] counts as [out, in·kh·kw].
  /// Embeddings, input and output layers, biases and scales are none: Muon gives them AdamW.
  bool matrix = false;
  /// Rows of each projection in a fused matrix (q, k, v, mlp), which Muon treats apart; empty: one matrix.
  std::vector<int64_t> row_parts;
};
using Parameters = std::vector<Parameter>;

enum class OptimizerKind { adamw, adamw8bit, prodigy, muon };
/// "adamw", "adamw8bit", "prodigy", "muon".
std::string_view name(OptimizerKind kind);
std::optional<OptimizerKind> optimizer_from_name(std::string_view name);

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::adamw;
  double beta1 = 0.9, beta2 = 0.999;  ///< decay of the averages of gradients and of their squares
  /// Added to the root of the second moment. PyTorch's 1e-8 is too little for 8-bit states, whose small second moments
  /// round to zero while the first do not; ai-toolkit and others train FLUX with this value.
  double epsilon = 1e-6;
  double weight_decay = 0.01;  ///< decoupled: values shrink by rate · weight_decay a step
  /// Muon: momentum, and the rate of matrices in units of the step's rate, which is AdamW's.
  double muon_momentum = 0.95, muon_rate = 10;
  /// Muon: number type of the Newton–Schulz products; absent: bf16 where the processor multiplies it, else f32.
  std::optional<at::ScalarType> muon_type;
  /// Prodigy: first guess of the distance to the optimum, factor on the estimate, its largest growth a step. The rate
  /// given to step() multiplies what Prodigy finds and should be about 1.
  double prodigy_d0 = 1e-6, prodigy_d_factor = 1, prodigy_growth_rate = std::numeric_limits<double>::infinity();
  bool prodigy_bias_correction = false;   ///< Adam's, which acts as a warm-up
  bool prodigy_safeguard_warmup = false;  ///< keeps the warm-up's rate out of the estimate's denominator
};

/// Tensors by "<parameter>.<what>" and "<what>", on the parameters' device or the CPU.
using OptimizerState = std::map<std::string, at::Tensor>;

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// One update from value.grad() of every parameter; parameters without a gradient stay as they are. Gradients are
  /// read only and must be finite (gradients.h).
  virtual void step(double learning_rate) = 0;
  /// Everything that step() remembers. The tensors are the optimiser's own: step() changes them.
  virtual OptimizerState state() const = 0;
  /// Copies in what state() of an optimiser of the same kind and parameters gave. Error conflict when a tensor is
  /// missing, unknown or of another shape; nothing is changed then.
  void load(const OptimizerState& saved);
};

/// Errors: bad_input for an option out of range; internal for a parameter that breaks what Parameter says, or when
/// parameters are on several devices.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const Parameters& parameters);

}  // namespace calotype::train
