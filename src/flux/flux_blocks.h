// The two kinds of block of the FLUX.1 transformer. Member names are the words of BFL's checkpoints.
//
// Shapes: B batch, T text tokens, I image tokens, L tokens of one stream, N = T + I, D width, H heads, K head width.
// Immutable and thread-safe. Source: black-forest-labs/flux src/flux/modules/layers.py; rounding as diffusers.
#pragma once

#include "flux/variant.h"
#include "kernels/fused_ops.h"
#include "weights/linear.h"

namespace calotype::flux {

using at::Tensor;
using kernels::Modulation;
using kernels::RotaryTable;
using weights::Linear;
using weights::Scope;

/// Linear(silu(vec)) cut into shift, scale (, gate) groups.
struct ModulationLayer {
  int64_t chunks;  ///< 2 final layer, 3 single block, 6 double block
  Linear lin;
  ModulationLayer(const Scope& lin_scope, int64_t width, int64_t chunk_count);
  /// vec [B, D] → groups of [B, D]: one, or two for six chunks (attention, then MLP).
  std::vector<Modulation> operator()(const Tensor& vec_BD) const;
};

struct QkNorm {
  Tensor query_norm, key_norm;  ///< [K] each
  QkNorm(const Scope& scope, int64_t head_width);
};

struct SelfAttention {
  Linear qkv, proj;
  QkNorm norm;
  SelfAttention(const Scope& scope, const TransformerConfig& config);
};

struct Mlp {
  Linear in, out;  ///< "0" and "2" in the checkpoint
  Mlp(const Scope& scope, const TransformerConfig& config);
  Tensor operator()(const Tensor& x_BLD) const;
};

struct Streams {
  Tensor img_BID, txt_BTD;
};

/// Text and picture keep their own weights and meet in attention.
struct DoubleBlock {
  std::string path;  ///< "double_blocks.3", for probes and messages
  int64_t head_width;
  ModulationLayer img_mod, txt_mod;
  SelfAttention img_attn, txt_attn;
  Mlp img_mlp, txt_mlp;
  DoubleBlock(const Scope& scope, const TransformerConfig& config);
  Streams operator()(const Streams& in, const Tensor& vec_BD, const RotaryTable& table) const;
};

/// Both streams joined, attention and MLP side by side.
struct SingleBlock {
  std::string path;
  int64_t head_width, width;
  ModulationLayer modulation;
  Linear linear1, linear2;
  QkNorm norm;
  SingleBlock(const Scope& scope, const TransformerConfig& config);
  Tensor operator()(const Tensor& x_BND, const Tensor& vec_BD, const RotaryTable& table) const;
};

}  // namespace calotype::flux
