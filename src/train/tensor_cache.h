// Computed tensors on disk, by key, so that a run encodes every picture and prompt once and frees the encoders.
//
//   TensorCache latents(folder / "latents");
//   if (!latents.has(key)) latents.put(key, {{"mean", mean}, {"std", std}});
//   latents.flush();
//   Tensor mean = latents.get(key, "mean");        // a view of the mapped file
//
// Keys are content hashes, so nothing goes stale: changed pictures and captions have other keys. Files are written as
// they fill or a minute has passed (shards), whole or not at all; a killed run loses at most one. One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <filesystem>
#include <map>
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

 private:
  void open_shard(const std::filesystem::path& file);

  std::filesystem::path folder_;
  std::map<std::string, std::map<std::string, at::Tensor>> entries_;
  std::map<std::string, at::Tensor> pending_;
  uint64_t pending_bytes_ = 0;
  std::chrono::steady_clock::time_point first_pending_;
  int next_shard_ = 0;
};

}  // namespace calotype::train
