// The parts of one model, found by content in whatever the user has: a diffusers folder, BFL's files, a ComfyUI
// checkpoint, single files in several layouts.
//
//   ModelBundle model = open_bundle({.model = "models/FLUX.1-schnell", .vae = "ae.safetensors"});
//
// Only headers are read. Immutable and thread-safe.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "flux/schedule.h"
#include "flux/variant.h"
#include "weights/tensor_index.h"

namespace calotype::pipeline {

/// Folders or files; each may hold any parts, what it holds decides, not which field named it.
struct ModelPaths {
  std::filesystem::path model;
  std::filesystem::path transformer, vae, clip, t5;  ///< take precedence over what `model` holds
};

/// Files that belong together: one checkpoint file, or all shards of one.
struct FileGroup {
  std::filesystem::path path;  ///< the file, or the index of the shards
  std::vector<files::TensorFile> files;
  weights::Checkpoint checkpoint;
};

/// Every checkpoint at a path. A folder with model_index.json is read as diffusers does (its components' folders),
/// another folder for the files in it and in its direct subfolders. Errors: as open_tensor_file; not_found when there
/// is nothing.
std::vector<FileGroup> open_files(const std::filesystem::path& path);

struct ModelBundle {
  std::string name;  ///< last component of the path, for metadata
  std::map<weights::Component, weights::TensorIndex> parts;
  std::filesystem::path clip_tokenizer, t5_tokenizer;
  flux::ScheduleConfig schedule;

  const weights::TensorIndex& part(weights::Component component) const { return parts.at(component); }
  flux::TransformerConfig transformer() const {
    return flux::transformer_config(part(weights::Component::transformer));
  }
  const flux::Variant& variant() const { return flux::variant_of(transformer()); }
  int64_t text_tokens =
      0;  ///< T5 tokens when nothing else is asked: the variant's, or fewer where the tokenizer says so
};

/// Errors: not_found naming each missing part and what was found instead, with the option that supplies it; conflict
/// when two files hold the same part; errors of the files themselves.
ModelBundle open_bundle(const ModelPaths& paths);

/// The same without requiring any part; for `calotype inspect`.
ModelBundle open_partial_bundle(const ModelPaths& paths);

}  // namespace calotype::pipeline
