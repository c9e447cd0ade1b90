// What a training will take, before it starts and without loading anything.
//
//   const uint64_t bytes = training_memory(config, *find_model("ostris/flux-dev-lora-trainer"), input);
//
// No LibTorch in this header: servers include it. Any thread.
#pragma once

#include <cstdint>

#include "worker/model_catalog.h"
#include "worker/model_config.h"

namespace calotype::worker {

/// Bytes at the peak on a CPU, from the sizes of weights, pictures and adapter: within a third. Reads headers of files
/// only; takes some milliseconds. Errors: not_found without weights, bad_input for settings that cannot be, those of
/// opening a model.
uint64_t training_memory(const ModelConfig& config, const ServedModel& trainer, const Json& input);

}  // namespace calotype::worker
