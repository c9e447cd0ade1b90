// Checkpoints split over several files: the index.json that names them.
//
//   for (const std::string& shard : parse_shard_index(text, "transformer/model.safetensors.index.json")) open(folder /
//   shard);
//
// Thread-safe.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "files/tensor_file.h"

namespace calotype::files {

/// tensor name → shard file name, as `weight_map` says. Shard names are plain names inside the index's folder: absolute
/// paths and `..` are refused. Errors: corrupt_file.
std::map<std::string, std::string> parse_shard_index(std::string_view text, std::string_view source);

/// Every shard that the index names, opened, and every promised tensor found in its shard.
/// Errors: not_found naming the missing shard and how many tensors it holds, corrupt_file for a missing tensor.
std::vector<TensorFile> open_shards(const std::filesystem::path& index);

/// A JSON object from a small file (configuration, index). Errors: as read_file, corrupt_file when it is not an object.
nlohmann::json read_json_object(const std::filesystem::path& path);
nlohmann::json parse_json_object(std::string_view text, std::string_view source);

}  // namespace calotype::files
