// Gradient checkpointing: a piece of the network that keeps only its inputs and is computed again in the backward pass.
//
//   std::vector<Tensor> out = recomputed({x, vec}, [&](const std::vector<Tensor>& in) { return block(in[0], in[1]); });
//
// Source: Chen et al. 1604.06174; torch/utils/checkpoint.py (the reentrant form).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace calotype::flux {

using Piece = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

/// piece(inputs), recorded as one node. Gradients reach the inputs that want them and every leaf that the piece uses;
/// whatever it refers to must live until the backward pass is over. A second backward pass is not possible.
std::vector<at::Tensor> recomputed(const std::vector<at::Tensor>& inputs, const Piece& piece);

}  // namespace calotype::flux
