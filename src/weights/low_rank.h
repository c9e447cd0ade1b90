// Low-rank corrections (LoRA) of a linear layer, kept beside its weight and applied at run time: taking one away is
// exact, and the weight may stay packed.
//
//   model.adapter_slots().at("double_blocks.0.img_attn.qkv")->corrections.push_back({.down_RI = a, .up_OR = b});
//
// A slot is shared by the layer and whoever attaches corrections. Attach and detach while no forward runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace calotype::weights {

struct LinearShape {
  int64_t in = 0, out = 0;
  bool bias = true;
};

/// y[…, first_row … first_row + O) += scale · (x·downᵀ)·upᵀ, computed in f32. Source: Hu et al. 2106.09685.
struct LowRank {
  at::Tensor down_RI;     ///< A: [rank, in], f32
  at::Tensor up_OR;       ///< B: [rows, rank], f32
  double scale = 1;       ///< strength · alpha / rank
  int64_t first_row = 0;  ///< of the rows that change: q, k and v of a fused layer are corrected apart
};

/// The corrections of one layer. Row ranges of two of them are equal, or disjoint, or one is the whole layer.
struct AdapterSlot {
  LinearShape shape;
  std::vector<LowRank> corrections;
};

/// By layer, in our names without ".weight".
using AdapterSlots = std::map<std::string, std::shared_ptr<AdapterSlot>>;

}  // namespace calotype::weights
