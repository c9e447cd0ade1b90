// The state of a run on disk, from which it goes on as if it had never stopped.
//
//   CheckpointFolder folder("my-run/checkpoints");
//   if (auto saved = folder.load(note)) continue_from(*saved);
//   folder.save({.step = step, .tensors = everything(), .state = settings}, &cancel, note);
//
// One file a step, checkpoint-000001234.safetensors, that any safetensors reader opens. A run may be killed at any
// moment: a file appears whole or not at all, and the one before it stays. One process per folder, one thread at a
// time.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/cancel.h"

namespace calotype::train {

struct Checkpoint {
  int64_t step = 0;
  std::map<std::string, at::Tensor> tensors;  ///< of the types that weights::write_tensors() takes
  nlohmann::json state;                       ///< everything else; no NaN, which JSON cannot hold
};

/// Takes one sentence for the user.
using Note = std::function<void(std::string_view)>;

class CheckpointFolder {
 public:
  /// `first_wait`: pause after a first attempt that met a full disk; later ones double, up to a minute.
  explicit CheckpointFolder(std::filesystem::path folder,
                            std::chrono::milliseconds first_wait = std::chrono::seconds(1));

  /// Durable when it returns. The two newest checkpoints are kept; those of later steps, left by a run that was taken
  /// up from an earlier one, are renamed to "….superseded" and told in a note. What a killed process left is removed.
  /// Without space on the disk it waits, as write_when_there_is_space() does. Device memory is read twice (checksum,
  /// file), one tensor at a time.
  void save(const Checkpoint& checkpoint, const base::CancelToken* cancel, const Note& note);

  /// The newest whole checkpoint, tensors on the CPU, or nothing. Damaged ones (cut short, changed bytes, not ours) are
  /// skipped with a note that names each and says why. Errors: files that cannot be read at all.
  std::optional<Checkpoint> load(const Note& note) const;

  std::filesystem::path path(int64_t step) const;

 private:
  /// By step, ascending.
  std::map<int64_t, std::filesystem::path> files() const;
  void remove_leftovers() const;
  void retire(int64_t newest, const Note& note) const;

  std::filesystem::path folder_;
  std::chrono::milliseconds first_wait_;
};

/// Calls `write`; when it fails with an Error of kind disk_full, says so in a note, waits and calls it again, until it
/// succeeds. Once `cancel` is requested it is called one last time and its Error thrown.
void write_when_there_is_space(const std::function<void()>& write, const base::CancelToken* cancel, const Note& note,
                               std::chrono::milliseconds first_wait = std::chrono::seconds(1));

}  // namespace calotype::train
