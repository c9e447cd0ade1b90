// A place in a checkpoint from which layers are built: names grow with "/", tensors come out checked.
//
//   Scope root(index, {.dtype = at::kBFloat16});
//   Linear qkv(root / "double_blocks.0" / "img_attn.qkv", {.in = 3072, .out = 9216});
//   root.finish();          // one Error that names everything missing or mis-shaped
//
// Missing and mis-shaped tensors are collected rather than thrown one by one; a stand-in keeps construction going until
// finish(). A scope on the meta device loads nothing and serves to check or count. Not thread-safe while building.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "weights/low_rank.h"
#include "weights/tensor_index.h"

namespace calotype::weights {

struct LoadOptions {
  at::ScalarType dtype = at::kFloat;  ///< f32, bf16 or f16: what layers compute in
  at::Device device = at::kCPU;       ///< cpu, cuda:n, or meta to check shapes only
  /// Plain weights of another type are converted once (fast steps) or at every use (no more memory than the file).
  enum class Plain { convert_once, convert_at_use } plain = Plain::convert_once;
  /// For training: whole batches go through a layer at once, which is faster; then the last bits of a sample depend on
  /// the others.
  bool training = false;
  /// Blocks of the transformer keep only their input and are computed again in the backward pass.
  bool recompute = false;
  /// Set: every tensor becomes an f32 leaf that records gradients, and is entered here by its name.
  std::map<std::string, at::Tensor>* trained = nullptr;
};

class Scope {
 public:
  Scope(const TensorIndex& index, LoadOptions options);
  Scope operator/(std::string_view name) const;
  Scope operator/(int number) const { return *this / std::to_string(number); }

  const std::string& path() const { return path_; }
  const LoadOptions& options() const { return shared_->options; }
  bool has(std::string_view leaf) const;
  /// Number of dimensions of a stored tensor, 0 when it is missing.
  size_t rank(std::string_view leaf) const;

  /// The stored tensor of this name, marked as used, or null after noting that it is missing or has another shape.
  const Source* source(std::string_view leaf, const std::vector<int64_t>& expected) const;
  /// A small tensor (norm scale, bias, embedding), unpacked to the compute type on the device; in f32 when trained.
  at::Tensor tensor(std::string_view leaf, const std::vector<int64_t>& expected) const;

  /// Where corrections of the layer at this path are attached.
  std::shared_ptr<AdapterSlot> adapter_slot(LinearShape shape) const;
  const AdapterSlots& adapter_slots() const { return shared_->slots; }

  /// Everything that was asked for, present or not, with the expected shape: on the meta device, what a model of given
  /// sizes is made of.
  const std::map<std::string, std::vector<int64_t>>& asked() const { return shared_->asked; }

  /// Throws one corrupt_file Error when anything was missing or mis-shaped; but not over an empty index, which only
  /// serves to list what is asked for.
  void finish() const;
  /// Names in the index that nothing asked for.
  std::vector<std::string> unused() const;
  /// What finish() would complain of, one line each.
  const std::vector<std::string>& problems() const { return shared_->problems; }

 private:
  struct Shared {
    const TensorIndex& index;
    LoadOptions options;
    std::vector<std::string> problems;
    std::map<std::string, std::vector<int64_t>> asked;
    AdapterSlots slots;
  };
  Scope(std::shared_ptr<Shared> shared, std::string path) : shared_(std::move(shared)), path_(std::move(path)) {}
  std::string full_name(std::string_view leaf) const;

  std::shared_ptr<Shared> shared_;
  std::string path_;
};

}  // namespace calotype::weights
