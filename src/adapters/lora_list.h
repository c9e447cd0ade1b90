// The adapters that a job asks for, read once and switched between jobs without touching the model's weights.
//
//   LoraList loras;
//   loras.read({{"style.safetensors", 0.8}}, shapes);          // before minutes of work: every mistake of a file
//   loras.attach_to(transformer.adapter_slots(), at::kCPU);     // nothing to do when the same list is attached
//
// One thread at a time. Files are read again when their size or time changed.
#pragma once

#include <memory>

#include "adapters/lora_apply.h"

namespace calotype::adapters {

struct LoraChoice {
  std::filesystem::path path;
  double scale = 1;  ///< −10 to 10; 1 = as trained
};

struct AppliedLora {
  std::filesystem::path path;
  double scale = 1;
  int applied = 0, total = 0;  ///< adapted layers that take effect, and that the file has
};

class LoraList {
 public:
  /// Reads what is not read yet, forgets what is not wanted any more, and tries everything against the model's shapes.
  /// Errors: those of read_adapter() and attach().
  void read(const std::vector<LoraChoice>& wanted, const weights::AdapterSlots& shapes);

  /// Makes the list the only corrections of these layers.
  void attach_to(const weights::AdapterSlots& slots, at::Device device);

  /// What attach_to() does or did, in the order of the list.
  const std::vector<AppliedLora>& applied() const { return applied_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  struct File {
    std::filesystem::path path;
    std::filesystem::file_time_type time;
    uintmax_t size = 0;
    std::shared_ptr<const Adapter> adapter;
    bool same_as(const File& other) const { return path == other.path && time == other.time && size == other.size; }
  };
  File open(const std::filesystem::path& path) const;

  std::vector<LoraChoice> wanted_;
  std::vector<File> files_;  ///< one for each of wanted_
  std::vector<AppliedLora> applied_;
  std::vector<std::string> warnings_;
  /// A slot of the model that has the list, nothing while they differ. An address alone would be fooled by a model that
  /// is loaded again at the same place.
  std::weak_ptr<const weights::AdapterSlot> attached_to_;
};

}  // namespace calotype::adapters
