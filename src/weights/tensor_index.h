// Which stored tensors make up each part of a model, whatever files and layouts they came from.
//
//   Checkpoint found = index_tensors(files);
//   const Source* qkv = found.parts.at(Component::transformer).find("double_blocks.0.img_attn.qkv.weight");
//
// Immutable once built; thread-safe.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "files/tensor_file.h"
#include "weights/key_map.h"

namespace calotype::weights {

/// One of our tensors: stored tensors stacked along their first dimension (diffusers keeps q, k and v apart).
struct Source {
  struct Part {
    files::StoredTensor tensor;
    float scale = 1.0f;  ///< fp8 files of ComfyUI: value = scale · stored number
  };
  std::vector<Part> parts;
  bool swapped = false;  ///< the halves of the rows are exchanged

  std::vector<int64_t> shape() const;
  uint64_t bytes() const;
};

struct TensorIndex {
  Component component = Component::transformer;
  std::map<std::string, Source> tensors;
  /// What the files say beyond tensors: the config.json beside them, or our own metadata; null when absent.
  nlohmann::json config;
  std::vector<std::filesystem::path> files;

  const Source* find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// Shape of a tensor, or Error naming the files when it is missing.
  std::vector<int64_t> shape(std::string_view name) const;
  /// One more than the largest N in "prefixN.…", 0 when there is none.
  int count(std::string_view prefix) const;
  int64_t parameters() const;
  uint64_t bytes() const;
  /// Lets the system take the stored numbers out of our memory; they come back from the file when they are touched.
  void release_pages() const;
  /// "flux1-dev.safetensors" or "transformer/a.safetensors and 2 more", for messages.
  std::string where() const;
};

struct Checkpoint {
  std::map<Component, TensorIndex> parts;
  std::vector<files::StoredTensor> unknown;  ///< tensors that belong to no part (position_ids, optimiser states, …)
};

/// Sorts the tensors of these files into parts. Errors: conflict when two files hold the same tensor; unsupported for
/// packings we cannot read (bitsandbytes, …); corrupt_file when a fused tensor lacks one of its pieces.
Checkpoint index_tensors(const std::vector<files::TensorFile>& files);

}  // namespace calotype::weights
