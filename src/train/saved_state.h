// What a checkpoint kept, back into the tensors that it came from.
#pragma once

#include <string_view>

#include "train/optimizer.h"

namespace calotype::train {

/// Copies `saved` into the tensors of `own`. Error conflict when a tensor is missing, unknown or of another shape or
/// type; nothing is changed then. `what` names the whole in messages: "optimizer state".
void copy_state(const OptimizerState& own, const OptimizerState& saved, std::string_view what);

}  // namespace calotype::train
