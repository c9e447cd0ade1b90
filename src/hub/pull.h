// Fetches a model repository from a hub into a folder, and remembers where it came from and under which licence.
//
//   const PullResult result = pull("black-forest-labs/FLUX.1-schnell", {.on_plan = [](const PullPlan& plan) { … }});
//   generate({.model = result.folder, …});
//
// Interrupted pulls go on where they stopped; files that are complete are not fetched again. Beside the model stands
// calotype-source.json: source URL, commit, licence, date and the checksum of every file. Thread-safe for different
// targets.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "hub/hub_client.h"
#include "hub/model_card.h"

namespace calotype::hub {

/// What is going to be fetched, told before the large files.
struct PullPlan {
  Repository repository;
  Licence licence;
  std::string source;  ///< the repository's page
  std::filesystem::path folder;
  std::vector<RepoFile> files;        ///< chosen
  uint64_t bytes = 0;                 ///< of those files
  std::vector<std::string> left_out;  ///< file names and why, for a person to read
};

struct PullOptions {
  std::string revision = "main";  ///< branch, tag or commit
  /// Shell patterns over whole paths ("vae/*"). Without any: everything but weights in formats that this program does
  /// not read (pickles, ONNX, …), and without single-file checkpoints beside a diffusers folder that holds the same
  /// weights.
  std::vector<std::string> include = {};
  std::filesystem::path target = {};  ///< empty = pulled_model_folder()
  HubAccess access = hub_access();
  std::function<void(const PullPlan&)> on_plan = {};
  base::Progress progress = {};  ///< stage "pull", bytes, note = file
};

struct PullResult {
  PullPlan plan;
  std::filesystem::path folder;
  int fetched = 0, kept = 0;  ///< files
};

/// Errors: as HubClient; not_found when no file is chosen; disk_full before anything is fetched.
PullResult pull(const std::string& repo, PullOptions options);

/// $CALOTYPE_DATA/models, else $XDG_DATA_HOME/calotype/models, else ~/.local/share/calotype/models.
std::filesystem::path pulled_models_folder();
/// Where pull() puts OWNER/NAME by itself; errors: bad_input for anything but such a name.
std::filesystem::path pulled_model_folder(const std::string& repo);
/// That folder when `name` is OWNER/NAME and a complete pull is there; what `--model OWNER/NAME` means.
std::optional<std::filesystem::path> find_pulled_model(const std::string& name);

}  // namespace calotype::hub
