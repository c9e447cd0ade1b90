// What a run will need, before it starts: memory by component and seconds per step, found by really training two blocks
// of each kind at the run's size and counting, then adding up the rest.
//
//   Forecast f = forecast(bundle, data, options, runtime);
//   print(f.text());                       // calotype train … --dry-run
//
// Within 10 % of what the process then takes on a CPU. One at a time; takes as long as nine steps with two or three
// blocks.
#pragma once

#include <nlohmann/json.hpp>

#include "pipeline/text_to_image.h"
#include "train/flow_task.h"

namespace calotype::train {

struct ForecastLine {
  std::string name;    ///< "base weights", "adapters and optimiser", "activations", …
  uint64_t bytes = 0;  ///< held at the same time as the others of its list
};

struct Forecast {
  std::vector<ForecastLine> training;  ///< what a step holds
  std::vector<ForecastLine>
      preparation;         ///< what encoding prompts and pictures holds, before the transformer is loaded
  bool recompute = false;  ///< blocks are computed again in the backward pass
  int64_t trained_numbers = 0;
  std::map<std::string, double> seconds;  ///< of a step: "double blocks", "single blocks", "rest"; without optimiser
  double seconds_per_step = 0;
  uint64_t available = 0;  ///< free now
  uint64_t peak() const;
  std::string text() const;
  nlohmann::json json() const;
};

/// Errors: those of loading; bad_input as training_bundle().
Forecast forecast(const pipeline::ModelBundle& bundle, const TrainData& data, const TrainOptions& options,
                  const pipeline::RuntimeOptions& runtime);

/// Whether what the blocks compute fits into memory until the backward pass, from sizes alone; options.recompute wins.
bool decide_recompute(const pipeline::ModelBundle& bundle, const TrainData& data, const TrainOptions& options,
                      const pipeline::RuntimeOptions& runtime);

/// The peak from sizes alone, at once and without computing anything: within a third of what forecast() finds. The
/// size of the largest pictures stands for the data. Asks the device for its free memory unless options.recompute is
/// there.
uint64_t rough_memory(const pipeline::ModelBundle& bundle, const TrainOptions& options,
                      const pipeline::RuntimeOptions& runtime, Bucket largest);

/// By pixels.
Bucket largest_bucket(const TrainData& data);

/// How the run's model is loaded.
weights::LoadOptions training_load_options(const pipeline::ModelBundle& bundle, const TrainOptions& options,
                                           const pipeline::RuntimeOptions& runtime, Bucket largest);

}  // namespace calotype::train
