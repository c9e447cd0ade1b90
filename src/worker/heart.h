// The thread that keeps a worker's claims alive, writes what its jobs have to say, and hands cancels to them.
//
//   Heart heart(store, {.id = name, .host = host, .pid = pid, .device = "cpu"}, stop);
//   Heart::Watch watch(heart, job);                 // beats for the job while `watch` lives
//
// Thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "worker/job_writer.h"

namespace calotype::worker {

class Heart {
 public:
  /// When `stop` is requested, the jobs are told that the worker leaves.
  Heart(store::Store& store, store::WorkerEntry entry, const base::CancelToken& stop);
  ~Heart();
  Heart(const Heart&) = delete;
  Heart& operator=(const Heart&) = delete;

  class Watch {
   public:
    Watch(Heart& heart, JobWriter& job);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

   private:
    Heart& heart_;
    JobWriter& job_;
  };

  /// Queued predictions at the last beat; 0 while no job runs.
  int64_t predictions_waiting() const { return waiting_; }
  /// Whose weights are loaded, for people and metrics.
  void set_model(const std::string& model);

 private:
  void run();
  void beat();
  void announce();

  store::Store& store_;
  const base::CancelToken& stop_;
  std::atomic<int64_t> waiting_{0};
  std::mutex mutex_;  // of what follows; held during writes, so that a job is not destroyed meanwhile
  std::condition_variable wake_;
  store::WorkerEntry entry_;
  std::vector<JobWriter*> jobs_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace calotype::worker
