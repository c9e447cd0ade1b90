// What a running job tells the world: log lines, bars, progress, previews, output — gathered, so that the database sees
// a few writes a second.
//
//   JobWriter job(store, std::move(claim));
//   job.start();
//   job.log("Using seed: 7");
//   job.bar("denoise", 2, 4);                       // " 50%|█████     | 2/4 [00:01<00:01,  1.60it/s]"
//   flux.generate(options, {.cancel = &job.cancel_token()});
//   job.finish(JobStatus::succeeded, output, {}, {});
//
// A job that is canceled, past its deadline or given to another worker ends the work through the cancel token; later
// writes do nothing. Trouble with the database never ends the work before finish(). Thread-safe: the heart beats and
// flushes while the work goes on.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

#include "base/cancel.h"
#include "image/rgb_image.h"
#include "store/store.h"

namespace calotype::worker {

/// Why a job should stop.
enum class Stop {
  none,
  gone,      ///< no longer ours, and another worker may have it
  canceled,  ///< by its user or its deadline
  leaving    ///< this worker ends; the job goes back to the queue
};

class JobWriter {
 public:
  JobWriter(store::Store& store, store::Claim claim);

  const store::Claim& claim() const { return claim_; }
  const store::Job& job() const { return claim_.job; }
  const base::CancelToken& cancel_token() const { return cancel_; }
  Stop stop() const { return stop_.load(); }
  /// The first reason counts.
  void stop(Stop reason);

  /// starting → processing.
  void start();
  /// One line, or several.
  void log(std::string_view line);
  /// A stage whose clock began a while ago, when `initial` units were done already. Writes their bar.
  void begin(std::string_view stage, int64_t initial, int64_t total, double seconds_ago);
  /// A line of the log and the job's progress. The clock of a stage starts with its first call; lines that come faster
  /// than every 0.2 s are left out, but the last.
  void bar(std::string_view stage, int64_t done, int64_t total, const std::string& postfix = "");
  /// Progress alone.
  void progress(std::string_view stage, int64_t done, int64_t total);
  /// A small picture of what forms; replaces the one before. At most one a second is kept.
  void preview(const image::RgbImage& picture);
  /// What a training draws after so many steps: stays with the job, and is its newest preview.
  void sample(const image::RgbImage& picture, int64_t step, const std::string& prompt);
  void output(const store::Json& output);
  /// Ends the job. A database that does not answer is asked again for a minute. False when the job is not ours any
  /// more.
  bool finish(store::JobStatus status, const store::Json& output, const std::optional<std::string>& error,
              const store::Json& metrics);
  /// Back into the queue.
  void release();

  /// Writes what was gathered. Called by the heart.
  void flush();
  /// Called by the heart; returns how many predictions wait.
  int64_t beat();

 private:
  using Clock = std::chrono::steady_clock;
  template <typename Write>
  void attempt(Write write);
  double stage_seconds(std::string_view stage);

  store::Store& store_;
  const store::Claim claim_;
  base::CancelToken cancel_;
  std::atomic<Stop> stop_{Stop::none};

  std::mutex mutex_;  // of what follows
  std::string pending_log_;
  std::optional<store::JobProgress> pending_progress_;
  std::string stage_;
  int64_t initial_ = 0;  ///< units done when the stage began
  Clock::time_point stage_began_, last_bar_, last_preview_;
  std::string preview_file_, older_preview_;
};

}  // namespace calotype::worker
