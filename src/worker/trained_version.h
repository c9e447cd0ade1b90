// What a finished training leaves in the store.
//
//   const store::Version version = register_version(store, job.job(), {.adapter = "lora.safetensors", .tar =
//   "lora.tar"});
//
// One thread at a time.
#pragma once

#include "store/store.h"
#include "worker/adapter_push.h"

namespace calotype::worker {

/// Puts both files into the store and a version into the destination model, which is made when it is missing.
store::Version register_version(store::Store& store, const store::Job& job, const TrainedAdapter& trained);

}  // namespace calotype::worker
