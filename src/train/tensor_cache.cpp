#include "train/tensor_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "files/tensor_file.h"
#include "weights/tensor_writer.h"

namespace calotype::train {
namespace fs = std::filesystem;

namespace {

// Whatever comes first: a killed run loses a minute of encoding, and a long one does not make thousands of files.
constexpr uint64_t kShardBytes = 256'000'000;
constexpr std::chrono::seconds kShardTime(60);

std::optional<at::ScalarType> tensor_type(files::TensorType type) {
  switch (type) {
    case files::TensorType::f32: return at::kFloat;
    case files::TensorType::f16: return at::kHalf;
    case files::TensorType::bf16: return at::kBFloat16;
    case files::TensorType::i64: return at::kLong;
    default: return std::nullopt;
  }
}

}  // namespace

TensorCache::TensorCache(fs::path folder) : folder_(std::move(folder)) {
  fs::create_directories(folder_);
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder_))
    if (entry.path().extension() == ".safetensors") found.push_back(entry.path());
  std::ranges::sort(found);
  for (const fs::path& file : found) {
    next_shard_ = std::max(next_shard_, std::atoi(file.stem().c_str()) + 1);
    try {
      open_shard(file);
    } catch (const base::Error&) {
      fs::remove(file);  // its entries will be computed again
    }
  }
}

TensorCache::~TensorCache() {
  try {
    flush();
  } catch (const std::exception&) {  // what is lost is computed again
  }
}

void TensorCache::open_shard(const fs::path& file) {
  for (const files::StoredTensor& stored : files::open_tensor_file(file).tensors) {
    const size_t dot = stored.name.rfind('.');
    const auto type = tensor_type(stored.type);
    base::check(dot != std::string::npos && type, base::ErrorKind::corrupt_file, "{}: is not a cache file",
                stored.where());
    auto* address = const_cast<std::byte*>(stored.bytes.data());
    const std::string key = stored.name.substr(0, dot);
    entries_[key][stored.name.substr(dot + 1)] = at::from_blob(
        address, stored.shape, [keep = stored.file](void*) {}, at::TensorOptions().dtype(*type));
  }
}

void TensorCache::put(const std::string& key, const std::map<std::string, at::Tensor>& tensors) {
  for (const auto& [part, tensor] : tensors) {
    pending_[key + "." + part] = tensor.cpu();
    pending_bytes_ += tensor.nbytes();
  }
  const auto now = std::chrono::steady_clock::now();
  if (pending_.size() == tensors.size()) first_pending_ = now;
  if (pending_bytes_ >= kShardBytes || now - first_pending_ >= kShardTime) flush();
}

void TensorCache::flush() {
  if (pending_.empty()) return;
  const fs::path file = folder_ / fmt::format("{:06}.safetensors", next_shard_++);
  weights::write_tensors(file, pending_);
  pending_.clear();
  pending_bytes_ = 0;
  open_shard(file);
}

at::Tensor TensorCache::get(const std::string& key, const std::string& part) const {
  const auto entry = entries_.find(key);
  base::check(entry != entries_.end() && entry->second.contains(part), base::ErrorKind::internal,
              "{}: no cached {} for {}", folder_.string(), part, key);
  return entry->second.at(part);
}

}  // namespace calotype::train
