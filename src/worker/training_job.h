// Trainings: from a claimed job to an adapter, a new version of the destination model, and what others may fetch.
//
//   const JobResult result = run_training(job, services, [&] { serve_waiting_predictions(); });
//
// Everything lies in DATA/work/JOBID: pictures, checkpoints, the adapter. A worker that takes the job over (after a
// crash, or because the first one was stopped) goes on from the newest checkpoint there. One thread at a time.
#pragma once

#include <functional>

#include "train/train_options.h"
#include "worker/services.h"

namespace calotype::worker {

/// What an input of a trainer asks for, but for its files. `side`: pixels of the squares that the model was made for; a
/// model made for less than 1024 is trained at that side. `notes` of the result say what was translated or chosen.
/// Errors: bad_input, unsupported.
struct TrainingPlan {
  train::TrainOptions options;
  std::vector<std::string> notes;
};
TrainingPlan training_plan(const Json& settings, int side);

/// `between_steps` is called between training steps. Output: {"version": "owner/name:HASH", "weights": file reference}.
/// Errors: canceled (a checkpoint was written); those of every part.
JobResult run_training(JobWriter& job, Services& services, const std::function<void()>& between_steps);

/// Removes the work folder of a job that is over.
void remove_training_files(const store::Store& store, const std::string& job);
/// The same for all that are over, for example because they were canceled while no worker had them.
void remove_finished_training_files(const store::Store& store);

}  // namespace calotype::worker
