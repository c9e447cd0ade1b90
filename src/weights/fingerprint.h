// A short name for the contents of a model part, to tell whether something was made from the same weights.
//
//   fingerprint(bundle.part(Component::transformer)) == "9f2c…"      // 64 hexadecimal digits
//
// Hashes names, shapes, types and samples of every tensor, not all bytes: 24 GB take less than a second. Two models
// that differ in training differ in nearly every number, so the samples tell them apart; a single changed number may
// escape.
#pragma once

#include <string>

#include "weights/tensor_index.h"

namespace calotype::weights {

/// SHA-256 in hexadecimal digits; layouts of the same weights (BFL, diffusers) have different fingerprints.
std::string fingerprint(const TensorIndex& index);

}  // namespace calotype::weights
