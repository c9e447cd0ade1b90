// Puts the pairs of an adapter beside the layers that they correct, and takes them away again.
//
//   const Applied done = attach(read_adapter("style.safetensors"), 0.8, transformer.adapter_slots(), at::kCPU);
//   detach_all(transformer.adapter_slots());       // exactly the base model again: its weights were never touched
//
// All or nothing: an adapter that fits in part is an error. Not while a forward of the model runs.
#pragma once

#include "adapters/lora_file.h"
#include "weights/low_rank.h"

namespace calotype::adapters {

struct Applied {
  int applied = 0;                     ///< adapted layers of the file that take effect
  int total = 0;                       ///< adapted layers in the file
  std::vector<std::string> unmatched;  ///< stored names that this variant has no place for (guidance in schnell)
};

/// Rows of a layer that part `part` of `parts` stands for: of a fused qkv [3D, D], or of linear1 [3D + M, D].
struct Rows {
  int64_t first = 0, count = 0;
};
Rows rows_of(int part, int parts, const weights::LinearShape& shape);

/// Adds the adapter at `strength` (any finite number, 1 = as trained) to what is attached already. A model without
/// guidance skips those layers; whatever else does not fit is an error and attaches nothing. Errors: conflict naming
/// tensor, expected and got.
Applied attach(const Adapter& adapter, double strength, const weights::AdapterSlots& slots, at::Device device);

void detach_all(const weights::AdapterSlots& slots);

/// While it lives, the model is the base alone; then what was attached is back.
class [[nodiscard]] WithoutAdapters {
 public:
  explicit WithoutAdapters(const weights::AdapterSlots& slots);
  ~WithoutAdapters();
  WithoutAdapters(const WithoutAdapters&) = delete;
  WithoutAdapters& operator=(const WithoutAdapters&) = delete;

 private:
  const weights::AdapterSlots& slots_;
  std::vector<std::vector<weights::LowRank>> kept_;
};

}  // namespace calotype::adapters
