// A job: one prediction or training from the request to its last answer.
//
//   starting ──claim, start──▶ processing ──▶ succeeded | failed | canceled      (a terminal status stays)
//      ▲ └──── cancel ────▶ canceled    └── worker lost or released: back to starting
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/values.h"

namespace calotype::store {

enum class JobKind { prediction, training };
/// starting: queued, or claimed and loading.
enum class JobStatus { starting, processing, succeeded, failed, canceled };

/// "prediction", "training".
std::string_view name(JobKind kind);
/// "starting", "processing", "succeeded", "failed", "canceled".
std::string_view name(JobStatus status);
/// Nothing for another word.
std::optional<JobKind> parse_job_kind(std::string_view word);
std::optional<JobStatus> parse_job_status(std::string_view word);
/// succeeded, failed, canceled.
bool is_terminal(JobStatus status);

struct Webhook {
  std::string url;
  std::vector<std::string> events;  ///< of start, output, logs, completed; taken literally, empty means none
  std::string dialect = {};         ///< whose receivers expect it, "" = Replicate's; the server's own word
  std::string secret = {};          ///< of a new job: the caller's own key of signatures; kept apart from what is read
};

struct JobProgress {
  std::string stage;        ///< "load", "denoise", "train", …
  int64_t done = 0;         ///< units finished
  int64_t total = 0;        ///< units in all, 0 = unknown
  double eta_seconds = -1;  ///< seconds left, negative = unknown
};

/// What a request asks for.
struct NewJob {
  std::string id;  ///< "" = make one; else 1 to 64 letters, digits, "_", "-"
  JobKind kind = JobKind::prediction;
  std::string model;                           ///< "owner/name"
  std::string version;                         ///< 64 hexadecimal digits
  Json input = Json::object();                 ///< checked, secrets taken out
  std::map<std::string, std::string> secrets;  ///< input fields that only the worker may see; kept encrypted
  std::string source = "api";                  ///< "api" or "web"
  std::string deployment;                      ///< "owner/name" or ""
  std::string destination;                     ///< trainings: model that gets the version, "owner/name"
  std::optional<Webhook> webhook;
  bool data_uris = false;        ///< answers carry files as data: URIs (created with Prefer: wait over http)
  std::optional<Time> deadline;  ///< canceled when not finished by then
  std::string token_id;          ///< who asked
};

struct Job {
  std::string id;
  JobKind kind = JobKind::prediction;
  std::string model, version;
  Json input = Json::object();
  std::string source, deployment, destination;
  std::optional<Webhook> webhook;
  bool data_uris = false;
  std::optional<Time> deadline;
  std::string token_id;

  JobStatus status = JobStatus::starting;
  Json output;                    ///< null until there is some
  Json metrics = Json::object();  ///< after the end: total_time, predict_time (seconds) and what the worker adds
  std::string logs;               ///< at most kLogLimit bytes; the middle of longer logs is left out
  std::optional<std::string> error;
  JobProgress progress;
  std::string preview_file;  ///< file id of the newest preview, "" = none
  std::string stream_token;  ///< capability for the stream of events
  Time created_at = 0;
  std::optional<Time> started_at, completed_at;
  bool data_removed = false;  ///< input, output and logs were deleted by retention
  int attempt = 0;            ///< claims so far
  int losses = 0;             ///< of these, workers that vanished
  std::string worker;         ///< who has it, "" = nobody
  int64_t change = 0;         ///< grows with every change of the job
};

constexpr size_t kLogLimit = 1'000'000;
/// A job is failed when this many workers vanished while they had it.
constexpr int kMaximumLosses = 3;

struct JobEvent {
  int64_t seq = 0;  ///< the job's `change` at which it happened; grows, with gaps
  /// logs: data is text to append. output: data is JSON; one event for each element added to a list, or one for a value
  /// that is no list. preview: a file id. progress: JSON {stage, done, total, eta_seconds}. status: a status word.
  /// Of progress and preview only the newest is kept, none after the end.
  std::string kind;
  std::string data;
};

/// A worker's right to work on a job, until it is lost (see JobStore).
struct Claim {
  Job job;
  std::map<std::string, std::string> secrets;
  std::string worker;
  int attempt = 0;
};

struct ClaimFilter {
  std::vector<JobKind> kinds = {JobKind::prediction, JobKind::training};
  std::vector<std::string> models;            ///< serve only these ("owner/name"); empty = all
  std::vector<std::string> preferred_models;  ///< their weights are loaded: taken first while nobody waits too long
  Time patience = 20 * kSecond;               ///< a job that has waited longer goes before preferred ones
  /// A training that has waited longer goes before predictions: they are served between its steps.
  Time training_patience = 120 * kSecond;
};

struct HeartbeatAnswer {
  bool still_mine = false;          ///< false after cancel, deadline or loss: stop and write nothing more
  bool canceled = false;            ///< of these: the job was canceled (by a user or its deadline)
  int64_t predictions_waiting = 0;  ///< queued predictions that nobody has taken
};

struct Reconciled {
  int requeued = 0, failed = 0, canceled = 0;
};

struct JobQuery {
  std::optional<JobKind> kind;
  std::optional<JobStatus> status;
  std::optional<Time> created_after, created_before;  ///< inclusive
  std::string search;                                 ///< part of the prompt, any case; "" = all
  std::string model;                                  ///< "owner/name"; "" = all
  std::string source;                                 ///< "api" or "web"; "" = all
  std::string cursor;                                 ///< of an earlier page; "" = the newest jobs
  int limit = 100;                                    ///< 1 to 1000
};

struct JobPage {
  std::vector<Job> jobs;       ///< newest first
  std::string next, previous;  ///< cursors towards older and newer jobs, "" = none
};

struct JobCount {
  JobKind kind;
  JobStatus status;
  bool claimed = false;  ///< of starting jobs: a worker has it and loads
  int64_t count = 0;
};

}  // namespace calotype::store
