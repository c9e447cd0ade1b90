// The JSON files of a diffusers folder, made from what the tensors show and from what came with them.
//
//   base::write_file(folder / "vae" / "config.json", part_config(bundle.part(Component::vae)).dump(2));
//
// Pure functions, thread-safe. Sources: diffusers FluxTransformer2DModel, AutoencoderKL,
// FlowMatchEulerDiscreteScheduler, FluxPipeline; transformers CLIPTextConfig, T5Config.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "flux/schedule.h"
#include "weights/tensor_index.h"

namespace calotype::pipeline {

/// The configuration of one part as its config.json holds it. It is also what our own files carry in their metadata, so
/// it names everything that the tensors do not show. Errors: corrupt_file for tensors that contradict each other.
nlohmann::json part_config(const weights::TensorIndex& index);

/// Errors: unsupported where the part has sizes that diffusers' classes fix (the MLP is four times the width, …).
void check_fits_diffusers(const weights::TensorIndex& index);

/// scheduler/scheduler_config.json
nlohmann::json scheduler_config(const flux::ScheduleConfig& schedule);

/// model_index.json for a folder with these parts; the others are null.
nlohmann::json model_index(const std::set<weights::Component>& parts);

/// tokenizer_config.json for a text encoder whose tokenizer came without one. `positions` is the longest prompt in
/// tokens: FluxPipeline pads CLIP's tokens to it.
nlohmann::json tokenizer_config(weights::Component component, int64_t positions);

/// The part's folder: "transformer", "vae", "text_encoder", "text_encoder_2".
std::string_view diffusers_folder(weights::Component component);

}  // namespace calotype::pipeline
