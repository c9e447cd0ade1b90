#include "adapters/lora_list.h"

#include <algorithm>

#include "base/error.h"

namespace calotype::adapters {

using base::ErrorKind;
namespace fs = std::filesystem;

namespace {

/// Slots of the same shapes that nobody computes with.
weights::AdapterSlots copies(const weights::AdapterSlots& shapes) {
  weights::AdapterSlots out;
  for (const auto& [layer, slot] : shapes)
    out[layer] = std::make_shared<weights::AdapterSlot>(weights::AdapterSlot{slot->shape, {}});
  return out;
}

bool same(const LoraChoice& a, const LoraChoice& b) { return a.path == b.path && a.scale == b.scale; }

}  // namespace

LoraList::File LoraList::open(const fs::path& path) const {
  std::error_code missing;  // read_adapter() says what is wrong with the file
  File file{.path = path, .time = fs::last_write_time(path, missing), .size = fs::file_size(path, missing)};
  for (const File& held : files_)
    if (!missing && held.same_as(file)) return held;
  file.adapter = std::make_shared<const Adapter>(read_adapter(path));
  return file;
}

void LoraList::read(const std::vector<LoraChoice>& wanted, const weights::AdapterSlots& shapes) {
  std::vector<File> files;
  std::vector<AppliedLora> applied;
  std::vector<std::string> warnings;
  const weights::AdapterSlots trial = copies(shapes);
  for (const LoraChoice& choice : wanted) {
    files.push_back(open(choice.path));
    const Adapter& adapter = *files.back().adapter;
    const Applied done = attach(adapter, choice.scale, trial, at::kCPU);
    applied.push_back({choice.path, choice.scale, done.applied, done.total});
    warnings.insert(warnings.end(), adapter.warnings.begin(), adapter.warnings.end());
    if (!done.unmatched.empty())
      warnings.push_back(fmt::format("{}: {} adapter layers were skipped, because this model has no guidance input",
                                     adapter.where, done.unmatched.size()));
  }
  const bool unchanged =
      std::ranges::equal(wanted, wanted_, same) &&
      std::ranges::equal(files, files_, [](const File& a, const File& b) { return a.adapter == b.adapter; });
  if (!unchanged) attached_to_.reset();
  wanted_ = wanted, files_ = std::move(files), applied_ = std::move(applied), warnings_ = std::move(warnings);
}

void LoraList::attach_to(const weights::AdapterSlots& slots, at::Device device) {
  if (slots.empty() || attached_to_.lock() == slots.begin()->second) return;
  attached_to_.reset();
  detach_all(slots);
  for (size_t i = 0; i < files_.size(); ++i) attach(*files_[i].adapter, wanted_[i].scale, slots, device);
  attached_to_ = slots.begin()->second;
}

}  // namespace calotype::adapters
