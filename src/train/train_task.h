// What a training run learns, apart from how it runs: a task gives the loss of numbered batches, the loop does the
// rest.
//
//   class FlowTask : public TrainTask { … };      // the transformer, through adapters or all its weights
//   TrainResult result = TrainLoop(task, options, hooks).run();
//
// Everything that a task draws at random is a function of the batch's number, so that a run can go on anywhere.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "image/rgb_image.h"
#include "train/optimizer.h"

namespace calotype::train {

struct Preview {
  std::string prompt;
  image::RgbImage picture;
};

class TrainTask {
 public:
  virtual ~TrainTask() = default;
  /// What the optimiser moves, in a fixed order.
  virtual const Parameters& parameters() const = 0;
  /// Batch number `index`, a scalar that records gradients.
  virtual at::Tensor loss(int64_t index) = 0;
  /// The loss on pictures that are not trained on, at fixed noise; nothing without such pictures.
  virtual std::optional<double> validation_loss() = 0;
  /// What the parameters as they stand draw for --sample-prompt.
  virtual std::vector<Preview> previews() = 0;
  /// Writes the parameters as they stand; the path is a file or a folder, as the output's. `about` is the run in short.
  virtual void save(const std::filesystem::path& path, const nlohmann::json& about) = 0;
  /// What the weights of a run belong to: resuming on another model or other pictures is refused.
  virtual std::string identity() const = 0;
};

}  // namespace calotype::train
