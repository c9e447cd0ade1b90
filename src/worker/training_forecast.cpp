#include "worker/training_forecast.h"

#include <algorithm>

#include "train/memory_forecast.h"
#include "train/train.h"
#include "worker/loaded_models.h"
#include "worker/training_job.h"

namespace calotype::worker {

uint64_t training_memory(const ModelConfig& config, const ServedModel& trainer, const Json& input) {
  const Backing backing = weights_behind(config, "black-forest-labs/flux-" + trainer.backend, trainer.backend);
  const pipeline::ModelBundle bundle = pipeline::open_bundle(model_paths(backing.weights));
  const auto side = static_cast<int>(vae::autoencoder_config(bundle.part(weights::Component::vae)).sample_size);
  const train::TrainOptions options =
      train::with_model_defaults(training_plan(with_defaults(trainer, input), side).options, bundle);
  const int largest = std::ranges::max(options.resolutions);
  return train::rough_memory(bundle, options, runtime_for(backing.weights, {.device = at::kCPU}),
                             {.width = largest, .height = largest});
}

}  // namespace calotype::worker
