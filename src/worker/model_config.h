// Which local weights stand behind which name, read once at start.
//
//   const ModelConfig config = read_model_config({.data = "data", .given = {"dev=models/FLUX.1-dev"}});
//   const Backing backing = weights_behind(config, "black-forest-labs/flux-dev", "dev");
//   log(backing.sentence);      // "black-forest-labs/flux-dev is drawn by FLUX.1-dev."
//
// Names: "owner/name" of a served model, "schnell", "dev", or "default" for all that have none of their own. Without
// any configuration the model in the box stands behind every name. Plain values; no LibTorch: servers include this.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace calotype::worker {

/// As pipeline::ModelPaths, and how to compute.
struct LocalWeights {
  std::filesystem::path model, transformer, vae, clip, t5;
  std::string dtype = "auto";  ///< auto, f32, bf16, f16

  std::string shown_name() const;  ///< last part of the path
  bool operator==(const LocalWeights&) const = default;
};

struct ModelConfig {
  std::map<std::string, LocalWeights> weights;  ///< by name
  std::string first;                            ///< the name that was configured first, "" = none
  std::filesystem::path in_the_box;             ///< the bundled model, "" = not there
  std::filesystem::path file;                   ///< where the configuration was read, "" = nowhere
};

struct ModelConfigSources {
  std::filesystem::path data;      ///< DATA/models.json is read when it is there
  std::filesystem::path file;      ///< instead of DATA/models.json
  std::vector<std::string> given;  ///< "NAME=PATH" or "PATH" (the default); stronger than the file
};

/// The file: {"models": {"dev": "PATH", "me/mine": {"model": "PATH", "vae": "PATH", "dtype": "bf16"}}}. Weaker than it:
/// $CALOTYPE_MODEL_SCHNELL, $CALOTYPE_MODEL_DEV and $CALOTYPE_MODEL (the default). Relative paths of the file count
/// from its folder. A PATH that does not exist may be OWNER/NAME of a pulled model (hub/pull.h). Errors: bad_input for
/// what is no such file or names no existing path.
ModelConfig read_model_config(const ModelConfigSources& sources);

struct Backing {
  LocalWeights weights;
  bool stand_in = false;  ///< other weights than the name promises
  std::string sentence;   ///< for logs and pages
};

/// `backend` is ServedModel::backend or the input `model` of a trained model. Error not_found that says how to
/// configure, when there are no weights at all.
Backing weights_behind(const ModelConfig& config, const std::string& name, const std::string& backend);

/// One sentence about all names, for pages and the start of a server; "" when nothing stands in.
std::string stand_in_note(const ModelConfig& config);

}  // namespace calotype::worker
