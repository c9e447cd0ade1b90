// The record of a run in its work folder: log.jsonl for programs, report.html and previews for people.
//
//   TrainLog log(work_folder(options));
//   log.begin(120);                                     // after resuming at step 120: later lines are dropped
//   log.append({{"step", 121}, {"loss", 0.42}, …});
//   log.add_previews(250, previews);  log.write_report(about);
//
// One thread at a time. A full disk does not end a run for its log's sake: lines are lost then, steps are not.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "train/train_task.h"

namespace calotype::train {

class TrainLog {
 public:
  explicit TrainLog(std::filesystem::path folder);

  /// Keeps lines and previews up to `step` of an earlier run (0: none) and goes on behind them.
  void begin(int64_t step);
  /// {"step", "loss", "lr", "grad_norm", "seconds", "eta_seconds"} or {"step", "validation_loss"}; the line is in the
  /// file when this returns.
  void append(const nlohmann::json& line);
  /// previews/step-000250-1.webp, … and for each the line {"step", "preview": 1, "prompt"}.
  void add_previews(int64_t step, const std::vector<Preview>& previews);
  /// One self-contained page: settings, curves of loss, validation loss and learning rate, previews by step (at most
  /// eight, the first and the last among them). `about` as in train/report_page.h. About 0.3 s for 100,000 lines.
  void write_report(const nlohmann::json& about) const;

 private:
  void open();

  std::filesystem::path folder_;
  std::ofstream file_;
  uint64_t size_ = 0;  // bytes of whole lines
};

}  // namespace calotype::train
