#include "weights/scope.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "weights/unpack.h"

namespace calotype::weights {

Scope::Scope(const TensorIndex& index, LoadOptions options)
    : shared_(std::make_shared<Shared>(Shared{index, options, {}, {}, {}})) {}

std::string Scope::full_name(std::string_view leaf) const {
  return path_.empty() ? std::string(leaf) : fmt::format("{}.{}", path_, leaf);
}

Scope Scope::operator/(std::string_view name) const { return Scope(shared_, full_name(name)); }

bool Scope::has(std::string_view leaf) const { return shared_->index.has(full_name(leaf)); }

size_t Scope::rank(std::string_view leaf) const {
  const Source* source = shared_->index.find(full_name(leaf));
  return source ? source->shape().size() : 0;
}

const Source* Scope::source(std::string_view leaf, const std::vector<int64_t>& expected) const {
  const std::string full = full_name(leaf);
  shared_->asked[full] = expected;
  const Source* source = shared_->index.find(full);
  if (!source) {
    shared_->problems.push_back(fmt::format("tensor {} is missing", full));
    return nullptr;
  }
  if (source->shape() == expected) return source;
  shared_->problems.push_back(fmt::format("tensor {} has shape {}, expected {}", full,
                                          files::shape_text(source->shape()), files::shape_text(expected)));
  return nullptr;
}

at::Tensor Scope::tensor(std::string_view leaf, const std::vector<int64_t>& expected) const {
  const auto options = at::TensorOptions().dtype(shared_->options.dtype);
  const Source* found = source(leaf, expected);
  if (!found || shared_->options.device.is_meta()) return at::empty(expected, options.device(at::kMeta));
  if (!shared_->options.trained) return unpack(*found, shared_->options.dtype).to(shared_->options.device);
  // A copy of its own: mapped pages cannot be written to.
  at::Tensor weight = unpack(*found, at::kFloat).to(shared_->options.device, at::kFloat, false, /*copy=*/true);
  weight.set_requires_grad(true);
  return shared_->options.trained->emplace(full_name(leaf), weight).first->second;
}

std::shared_ptr<AdapterSlot> Scope::adapter_slot(LinearShape shape) const {
  auto& slot = shared_->slots[path_];
  if (!slot) slot = std::make_shared<AdapterSlot>(AdapterSlot{shape, {}});
  return slot;
}

void Scope::finish() const {
  const auto& problems = shared_->problems;
  if (problems.empty() || shared_->index.tensors.empty()) return;
  const size_t shown = std::min<size_t>(problems.size(), 3);
  const std::string more = problems.size() > shown ? fmt::format(" and {} more", problems.size() - shown) : "";
  base::fail(base::ErrorKind::corrupt_file, "{}: {}{}; the file is damaged, incomplete or belongs to another model",
             shared_->index.where(),
             fmt::join(problems.begin(), problems.begin() + static_cast<std::ptrdiff_t>(shown), ", "), more);
}

std::vector<std::string> Scope::unused() const {
  std::vector<std::string> names;
  for (const auto& [name, source] : shared_->index.tensors)
    if (!shared_->asked.contains(name)) names.push_back(name);
  return names;
}

}  // namespace calotype::weights
