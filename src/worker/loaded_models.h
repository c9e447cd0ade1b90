// Models that stay in memory between jobs, so that the next one with the same weights starts at once.
//
//   pipeline::TextToImage& flux = loaded.get(backing.weights);
//
// A model that was not used for longest leaves when another needs its memory. One thread at a time.
#pragma once

#include <list>

#include "pipeline/text_to_image.h"
#include "worker/model_config.h"

namespace calotype::worker {

pipeline::ModelPaths model_paths(const LocalWeights& weights);
/// `base` with the number type that the configuration asks for.
pipeline::RuntimeOptions runtime_for(const LocalWeights& weights, const pipeline::RuntimeOptions& base);

class LoadedModels {
 public:
  explicit LoadedModels(pipeline::RuntimeOptions runtime) : runtime_(runtime) {}

  /// Valid until the next call. Errors: those of open_bundle().
  pipeline::TextToImage& get(const LocalWeights& weights);
  /// After a failure of unknown depth, or when memory is wanted for something else.
  void drop_all() { models_.clear(); }

 private:
  struct Loaded {
    LocalWeights weights;
    std::unique_ptr<pipeline::TextToImage> model;
  };
  pipeline::RuntimeOptions runtime_;
  std::list<Loaded> models_;  ///< the last used first
};

}  // namespace calotype::worker
