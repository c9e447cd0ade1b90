// A training run from options to result: everything is checked first, then data, model, and the loop.
//
//   TrainResult result = train({.model = "FLUX.1-dev"}, {.data = "photos.zip", .trigger = "TOK", .output =
//   "tok.safetensors"},
//                              {}, {.progress = terminal_progress(), .cancel = &interrupt_token()});
//
// One run at a time in a process, and one process per work folder.
#pragma once

#include <string_view>

#include "pipeline/model_bundle.h"
#include "train/dataset.h"
#include "train/flow_task.h"
#include "train/train_loop.h"

namespace calotype::train {

/// Where an adapter lies in OUTPUT.tar, and its captions beside it, as hosted trainers lay theirs out
/// (replicate/flux-fine-tuner train.py).
inline constexpr std::string_view kPackageFolder = "output/flux_train_replicate/";

/// The data set of a run as the options want it, with nothing but pictures and captions looked at.
Dataset training_dataset(const TrainOptions& options, int64_t vae_factor, const TrainHooks& hooks);

/// Training and held-out pictures: those of validation_data, or a share of the data chosen by content.
TrainData split(const Dataset& dataset, const TrainOptions& options, int64_t vae_factor, const TrainHooks& hooks);

/// Fills in what the options leave to the model: the sizes of the pictures.
TrainOptions with_model_defaults(TrainOptions options, const pipeline::ModelBundle& bundle);

/// Opens the model of a run, with initial weights where a diffusers folder has configurations only. Errors: those of
/// open_bundle; bad_input for options that do not fit the model (no layer matches, guidance, a picture-conditioned
/// variant), before any weight is read.
pipeline::ModelBundle training_bundle(const pipeline::ModelPaths& paths, const TrainOptions& options);

/// Errors: those of the parts; conflict when another process works in the same work folder; canceled after a
/// checkpoint.
TrainResult train(const pipeline::ModelPaths& paths, TrainOptions options, const pipeline::RuntimeOptions& runtime,
                  const TrainHooks& hooks);

}  // namespace calotype::train
