// What a run learns, made and written: adapters as other programs read them, and whole models as diffusers folders.
//
//   std::vector<AdapterPair> pairs = new_adapters(transformer.adapter_slots(), options, at::kCPU);
//   save_adapter("tok.safetensors", pairs, bundle, options, about);
//
// Files appear whole or not at all. Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <nlohmann/json.hpp>

#include "adapters/lora_file.h"
#include "pipeline/model_bundle.h"
#include "train/optimizer.h"
#include "train/train_options.h"
#include "weights/low_rank.h"

namespace calotype::train {

/// New adapters for every linear layer of the blocks, in diffusers' unfused naming, that options.layers matches: down
/// uniform within ±1/√in (Kaiming with a = √5), up zero, scale alpha/rank, f32 leaves that record gradients. Source:
/// Hu et al. 2106.09685; peft tuners/lora/layer.py. Errors: bad_input when nothing matches.
std::vector<adapters::AdapterPair> new_adapters(const weights::AdapterSlots& slots, const TrainOptions& options,
                                                at::Device device);

/// A weight of a model under full training, as the optimisers want it described.
Parameter trained_weight(const std::string& name, const at::Tensor& value);

/// The adapter with what it was made from: base model and fingerprint, rank, alpha, trigger word, steps, settings, and
/// the licence that the base brings with it. With options.tar also the archive that hosted trainers return.
void save_adapter(const std::filesystem::path& path, const std::vector<adapters::AdapterPair>& pairs,
                  const pipeline::ModelBundle& bundle, const TrainOptions& options, const nlohmann::json& about);

/// The folder again at `to`, without copying bytes where the file system allows it.
void link_copy(const std::filesystem::path& from, const std::filesystem::path& to);
/// By its name: a checkpoint file or the index of one.
bool holds_weights(const std::filesystem::path& file);

using TrainedParts = std::map<weights::Component, std::map<std::string, at::Tensor>>;

/// A folder with the model: these parts' weights are written, everything else of the diffusers folder that the bundle
/// came from is linked or copied beside them. From other layouts each trained part becomes a file of its own
/// (transformer.safetensors, …), which --transformer and --vae take. An existing folder is replaced.
void save_model(const std::filesystem::path& folder, const TrainedParts& parts, const pipeline::ModelBundle& bundle,
                const TrainOptions& options, const nlohmann::json& about);

}  // namespace calotype::train
