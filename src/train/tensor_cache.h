// Computed tensors on disk, by key, so that a run encodes every picture and prompt once and frees the encoders.
//
//   TensorCache latents(folder / "latents");
//   if (!latents.has(key)) latents.put(key, {{"mean", mean}, {"std", std}});
//   latents.flush();
//   Tensor mean = latents.get(key, "mean");        // a view of the mapped file
//
// Keys are content hashes, so nothing goes stale: changed pictures and captions have other keys. Files are written as
// they fill (shards), whole or not at all; an interrupted run loses at most one. One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>

namespace calotype::train {

class TensorCache {
 public:
  /// Opens what the folder holds; a damaged shard is deleted and its entries are missing again.
  explicit TensorCache(std::filesystem::path folder);
  /// Writes what was put, so that Ctrl-C and errors lose nothing; a full disk loses it.
  ~TensorCache();
  TensorCache(const TensorCache&) = delete;
  TensorCache& operator=(const TensorCache&) = delete;

  bool has(const std::string& key) const { return entries_.contains(key); }
  /// f32, bf16, f16 or i64; readable after flush().
  void put(const std::string& key, const std::map<std::string, at::Tensor>& tensors);
  /// Writes what was put since the last call.
  void flush();
  /// Do not write to it. Error internal when the entry is not there.
  at::Tensor get(const std::string& key, const std::string& part) const;
  /// Deletes shards that hold none of these keys.
  void keep_only(const std::set<std::string>& keys);

 private:
  void open_shard(const std::filesystem::path& file);

  std::filesystem::path folder_;
  std::map<std::string, std::map<std::string, at::Tensor>> entries_;
  std::map<std::filesystem::path, std::set<std::string>> shards_;
  std::map<std::string, at::Tensor> pending_;
  uint64_t pending_bytes_ = 0;
  int next_shard_ = 0;
};

}  // namespace calotype::train
