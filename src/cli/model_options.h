// The options with which every command that uses a model names it, and how it is computed.
#pragma once

#include <string>

#include "pipeline/model_bundle.h"
#include "pipeline/text_to_image.h"

namespace CLI {
class App;
}

namespace calotype::cli {

struct ModelOptions {
  pipeline::ModelPaths paths;
  std::string dtype = "auto", device = "auto";
  int threads = 0;  ///< 0 = all cores
};

/// Adds --model, --transformer, --vae, --clip, --t5, --dtype, --device, --threads.
void add_model_options(CLI::App& command, ModelOptions& options);

/// Sets the thread count. Errors: bad_input for unknown names; unsupported for a device that is not there.
pipeline::RuntimeOptions runtime_options(const ModelOptions& options);

/// A --model OWNER/NAME that is no path becomes the folder into which `calotype pull` fetched it. Errors: not_found for
/// what is neither.
void use_pulled_model(ModelOptions& options);

/// use_pulled_model(); where no part of a model was named, the model in the box is, with a note that says so. Errors:
/// bad_input when there is none.
void choose_model(ModelOptions& options);

}  // namespace calotype::cli
