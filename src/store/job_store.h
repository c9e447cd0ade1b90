// Jobs in the database: accepted by the server, claimed and written by workers, read by everybody.
//
//   Job job = jobs.create({.model = "black-forest-labs/flux-dev", .version = v, .input = {{"prompt", "a fox"}}});
//
//   while (auto claim = jobs.claim("host-0", {})) {     // a worker's loop
//     jobs.start(*claim);
//     jobs.log(*claim, "Using seed: 7\n");
//     jobs.finish(*claim, JobStatus::succeeded, output, {}, metrics);
//   }
//
// A job is claimed by one worker at a time. Every write of a worker is conditional on its claim (job, worker, attempt,
// not terminal): after a cancel, a deadline or a loss it is an Error conflict and changes nothing. Changes of status
// put the job's webhook deliveries into the queue (webhook_queue.h) in the same transaction.
//
// Claims live on heartbeats: a claim without one for kStaleAfter is lost, reconcile() gives the job to the next worker.
// Clocks of several machines should agree within a few seconds.
//
// Thread-safe.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/database.h"
#include "store/job.h"
#include "store/secret_box.h"

namespace calotype::store {

class JobChange;
class JobWaiter;

/// Heartbeats should come every 5 s or so.
constexpr Time kStaleAfter = 45 * kSecond;

class JobStore {
 public:
  JobStore(std::shared_ptr<Database> database, SecretBox secrets);
  ~JobStore();

  // Requests
  /// The same id with the same content again gives the job there is (secrets are not compared); with other content it
  /// is an Error conflict. Also counts a run of the model when the registry knows it.
  Job create(const NewJob& request);
  std::optional<Job> find(const std::string& id);
  std::optional<Job> find_by_stream(const std::string& token);
  /// Newest first. Pages stay put while jobs arrive. Error bad_input for a cursor that is none.
  JobPage list(const JobQuery& query);
  /// Jobs that will be claimed before this one; 0 = next, running or done. Error not_found.
  int64_t queue_place(const std::string& id);
  /// Ends a queued or running job at once; one that has ended stays as it is. Error not_found.
  Job cancel(const std::string& id);
  /// Events with a seq above `after_seq`, in order, at most 1000.
  std::vector<JobEvent> events(const std::string& id, int64_t after_seq);
  /// Waits until the job's change is above `after_change` (at once when it is, or when there is no such job) or the
  /// time is over; true when it is above. Any number of threads may wait: one thread of this object asks the database
  /// for all.
  bool wait_for_change(const std::string& id, int64_t after_change, std::chrono::milliseconds timeout);
  /// What the job's caller gave as Webhook::secret, "" = nothing.
  std::string webhook_secret(const std::string& id);
  /// For metrics: how many jobs there are of each kind and status.
  std::vector<JobCount> counts();

  // Workers
  /// The next job for this worker, or nothing: predictions before trainings, the oldest first, see ClaimFilter.
  std::optional<Claim> claim(const std::string& worker, const ClaimFilter& filter);
  /// Returns early, and true, when a job may have been queued.
  bool wait_for_work(std::chrono::milliseconds timeout);
  /// starting → processing. Again: nothing happens.
  void start(const Claim& claim);
  /// Appends to the logs. Lines should be gathered for a moment (0.2 s), each call is a transaction.
  void log(const Claim& claim, std::string_view text);
  void progress(const Claim& claim, const JobProgress& progress);
  void preview(const Claim& claim, const std::string& file_id);
  /// The output so far; a list grows by elements.
  void output(const Claim& claim, const Json& output);
  /// `status` must be terminal. metrics gets total_time and, unless the worker gives it, predict_time. Deletes secrets.
  void finish(const Claim& claim, JobStatus status, const Json& output, const std::optional<std::string>& error,
              const Json& metrics);
  /// Also ends the job when its deadline is over. Never throws conflict.
  HeartbeatAnswer heartbeat(const Claim& claim);
  /// Back to the front of the queue because the worker shuts down; counts as no loss. Nothing when the claim is lost.
  void release(const Claim& claim);

  // Upkeep, callable by anyone at any time
  /// Claims without heartbeat since `now` - kStaleAfter go back to the queue, or fail after kMaximumLosses; jobs past
  /// their deadline are canceled.
  Reconciled reconcile(Time now);
  /// Deletes input, output and logs of jobs that ended before `completed_before`; their rows stay, data_removed.
  int64_t forget(JobKind kind, Time completed_before);

 private:
  std::optional<Claim> take(Poco::Data::Session& session, const std::string& worker, const ClaimFilter& filter);
  void change(const Claim& claim, Durability durability, const std::function<void(JobChange&)>& work);

  std::shared_ptr<Database> database_;
  SecretBox secrets_;
  std::unique_ptr<JobWaiter> waiter_;
  std::mutex mutex_;
  std::string seen_queue_;  // the queue as the last claim() saw it
};

}  // namespace calotype::store
