// One change of a job inside a transaction: columns to set, events to record, webhook deliveries that follow from it.
// Only src/store includes this.
//
//   JobChange job(session, *lock_job(session, id));
//   job.append_log("Using seed: 7\n");
//   job.save();                           // nothing but events and deliveries is written before
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/job.h"
#include "store/sql.h"

namespace calotype::store {

/// Columns that read_job() needs.
extern const std::string kJobColumns;
/// Everything but the logs.
Job read_job(const Row& row);
/// The logs of jobs, up to the change at which each was read.
void read_logs(Session& session, const std::vector<Job*>& jobs);

/// The job's row, which nobody else can change until the transaction ends; nothing when there is no such job.
std::optional<Row> lock_job(Session& session, const std::string& id);

class JobChange {
 public:
  /// `row`: of lock_job().
  JobChange(Session& session, const Row& row);

  const Job& job() const { return job_; }  ///< as it was
  void set(const std::string& column, Value value) { columns_[column] = std::move(value); }
  void append_log(std::string_view text);
  void set_progress(const JobProgress& progress);
  void set_preview(const std::string& file_id);
  void set_output(const Json& output);
  void begin(Time now);
  void end(JobStatus status, const Json& output, const std::optional<std::string>& error, Json metrics);
  /// Back to the queue; what the worker has made so far is dropped, its logs stay.
  void requeue();
  void save();

 private:
  void event(const std::string& kind, const std::string& data);
  void forget_events(const std::vector<std::string>& kinds);
  void cut_log();
  void deliver(std::string_view event);

  Session& session_;
  Job job_;
  int64_t change_, log_bytes_;
  std::map<std::string, Value> columns_;
};

}  // namespace calotype::store
