// Runs a task to its end: optimiser steps, checkpoints, validation, previews, log, and the saved result.
//
//   TrainLoop loop(task, options, {.progress = terminal_progress(), .cancel = &interrupt_token()});
//   TrainResult result = loop.run();          // goes on where an earlier run of the same command stopped
//
// A run that is killed and started again ends with the bits of an uninterrupted one (on the CPU, with as many threads).
// One thread at a time.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string_view>

#include "base/cancel.h"
#include "base/progress.h"
#include "train/average.h"
#include "train/train_checkpoint.h"
#include "train/train_log.h"
#include "train/train_options.h"
#include "train/train_task.h"

namespace calotype::train {

struct TrainHooks {
  base::Progress progress;                         ///< stages "train", "text", "encode", "check"
  const base::CancelToken* cancel = nullptr;       ///< stops after the step in progress, with a checkpoint
  std::function<void(std::string_view)> note;      ///< what a person should know: resumed, skipped, waiting for space
  std::function<void(const nlohmann::json&)> log;  ///< each line of the log as it is written
  std::function<void(int64_t step, const std::vector<Preview>&)> previews;  ///< drawn after that step
  std::function<void()> between_steps;             ///< other work may be done here; its time is no step's
};

struct TrainResult {
  int64_t steps = 0;    ///< done in all, earlier runs included
  int64_t skipped = 0;  ///< steps without finite numbers
  double loss = 0;      ///< running mean over about the last 50 steps
  std::optional<double> base_validation, validation, best_validation;
  int64_t best_step = 0;
  double seconds_per_step = 0;         ///< median of this run
  uint64_t peak_memory = 0;            ///< bytes, of the process
  std::filesystem::path output, best;  ///< best: with validation, OUTPUT's name with ".best" in it
};

class TrainLoop {
 public:
  TrainLoop(TrainTask& task, const TrainOptions& options, TrainHooks hooks);

  /// Errors: canceled after a checkpoint was written; internal when ten steps in a row have no finite loss or gradient
  /// (the last finite state is saved first, if there is one); conflict when the work folder holds a run with other
  /// settings.
  TrainResult run();

 private:
  void resume();
  void check_settings(const Checkpoint& found) const;
  void take_up(const Checkpoint& found);
  void one_step();
  void guard_finite(double loss, double norm);
  bool finite() const;
  [[noreturn]] void stop_at_finite_state();
  void record(double loss, double norm, double rate);
  void validate();
  void show_previews();
  void save_checkpoint();
  void save_output(const std::filesystem::path& path);
  nlohmann::json about() const;
  void write_report() const;
  bool due(int every) const { return every > 0 && step_ % every == 0; }
  void note(const std::string& text) const;

  TrainTask& task_;
  const TrainOptions& options_;
  TrainHooks hooks_;
  std::unique_ptr<Optimizer> optimizer_;
  std::optional<Average> average_;
  CheckpointFolder checkpoints_;
  TrainLog log_;
  int64_t step_ = 0;
  int non_finite_in_a_row_ = 0;
  TrainResult result_;
  std::vector<double> step_seconds_;
  std::chrono::steady_clock::time_point step_began_;
};

}  // namespace calotype::train
