#include "store/job_change.h"

#include "store/notifications.h"
#include "store/webhook_outbox.h"

namespace calotype::store {
namespace {

constexpr size_t kLogPiece = 32 << 10;  // what is cut out of the middle is whole pieces
constexpr int64_t kLogHead = 200'000, kLogTail = 600'000;

std::optional<Webhook> read_webhook(const Row& row) {
  if (row.text("webhook_url").empty()) return {};
  return Webhook{.url = row.text("webhook_url"),
                 .events = row.json("webhook_events").get<std::vector<std::string>>(),
                 .dialect = row.text("webhook_dialect")};
}

JobProgress read_progress(const Json& json) {
  if (!json.is_object()) return {};
  return {.stage = json.value("stage", ""),
          .done = json.value("done", int64_t{0}),
          .total = json.value("total", int64_t{0}),
          .eta_seconds = json.value("eta_seconds", -1.0)};
}

double seconds(Time from, Time to) { return static_cast<double>(std::max<Time>(to - from, 0)) / kSecond; }

/// At most kLogPiece bytes of the front, not inside a UTF-8 character.
std::string_view front_piece(std::string_view text) {
  if (text.size() <= kLogPiece) return text;
  size_t end = kLogPiece;
  while (end > kLogPiece - 4 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

std::string left_out(std::string_view bytes) {
  return fmt::format("\n[… {} bytes of the log are left out …]\n", bytes);
}

}  // namespace

const std::string kJobColumns =
    "id, kind, model, version, input, source, deployment, destination, webhook_url, webhook_events, "
    "webhook_dialect, data_uris, "
    "deadline, "
    "token_id, status, output, metrics, error, progress, preview_file, stream_token, created_at, started_at, "
    "completed_at, "
    "data_removed, attempt, losses, worker, heartbeat_at, change, log_bytes, created_at AS page_key, id AS page_id";

Job read_job(const Row& row) {
  Job job{.id = row.text("id"),
          .kind = parse_job_kind(row.text("kind")).value_or(JobKind::prediction),
          .model = row.text("model"),
          .version = row.text("version"),
          .input = row.json("input"),
          .source = row.text("source"),
          .deployment = row.text("deployment"),
          .destination = row.text("destination"),
          .webhook = read_webhook(row),
          .data_uris = row.flag("data_uris"),
          .deadline = row.maybe_integer("deadline"),
          .token_id = row.text("token_id")};
  job.status = parse_job_status(row.text("status")).value_or(JobStatus::failed);
  job.output = row.json("output");
  job.metrics = row.json("metrics");
  job.error = row.maybe_text("error");
  job.progress = read_progress(row.json("progress"));
  job.preview_file = row.text("preview_file");
  job.stream_token = row.text("stream_token");
  job.created_at = row.integer("created_at");
  job.started_at = row.maybe_integer("started_at");
  job.completed_at = row.maybe_integer("completed_at");
  job.data_removed = row.flag("data_removed");
  job.attempt = static_cast<int>(row.integer("attempt"));
  job.losses = static_cast<int>(row.integer("losses"));
  job.worker = row.text("worker");
  job.change = row.integer("change");
  return job;
}

void read_logs(Session& session, const std::vector<Job*>& jobs) {
  std::map<std::string, Job*> by_id;
  std::vector<std::string> ids;
  for (Job* job : jobs) {
    by_id[job->id] = job;
    ids.push_back(job->id);
  }
  if (ids.empty()) return;
  Conditions conditions;
  conditions.add_one_of("job", ids).add("kind IN ('logs', 'cut')");
  for (const Row& row :
       rows(session, "SELECT job, seq, kind, data FROM job_events" + conditions.where() + " ORDER BY job, seq",
            conditions.values())) {
    Job& job = *by_id.at(row.text("job"));
    if (row.integer("seq") > job.change) continue;  // written since the job was read
    job.logs += row.text("kind") == "cut" ? left_out(row.text("data")) : row.text("data");
  }
}

std::optional<Row> lock_job(Session& session, const std::string& id) {
  return first_row(session, fmt::format("SELECT {} FROM jobs WHERE id = ?{}", kJobColumns, for_update(session)), {id});
}

JobChange::JobChange(Session& session, const Row& row)
    : session_(session), job_(read_job(row)), change_(job_.change), log_bytes_(row.integer("log_bytes")) {}

void JobChange::event(const std::string& kind, const std::string& data) {
  execute(session_, "INSERT INTO job_events (job, seq, kind, size, data) VALUES (?, ?, ?, ?, ?)",
          {job_.id, ++change_, kind, static_cast<int64_t>(data.size()), data});
}

void JobChange::forget_events(const std::vector<std::string>& kinds) {
  Conditions conditions;
  conditions.add("job = ?", {job_.id}).add_one_of("kind", kinds);
  execute(session_, "DELETE FROM job_events" + conditions.where(), conditions.values());
}

void JobChange::deliver(std::string_view event) {
  if (!job_.webhook) return;
  enqueue_delivery(
      session_, {.job = job_.id, .change = change_, .url = job_.webhook->url, .events = job_.webhook->events}, event);
}

void JobChange::append_log(std::string_view text) {
  const std::string clean = clean_text(text);
  for (std::string_view rest = clean; !rest.empty();) {
    const std::string_view piece = front_piece(rest);
    event("logs", std::string(piece));
    log_bytes_ += static_cast<int64_t>(piece.size());
    rest.remove_prefix(piece.size());
    if (log_bytes_ > static_cast<int64_t>(kLogLimit)) cut_log();
  }
  deliver("logs");
}

// A mark takes the place of what is deleted. Readers who have seen that part do not see the mark: its number is not
// new.
void JobChange::cut_log() {
  const Rows pieces =
      rows(session_,
           "SELECT seq, kind, size, CASE WHEN kind = 'cut' THEN data ELSE '' END AS cut FROM job_events "
           "WHERE job = ? AND kind IN ('logs', 'cut') ORDER BY seq",
           {job_.id});
  size_t first = 0, last = pieces.size();
  int64_t head = 0, tail = 0, missing = 0;
  while (first < last && pieces[first].text("kind") == "logs" && head + pieces[first].integer("size") <= kLogHead)
    head += pieces[first++].integer("size");
  while (last > first && tail + pieces[last - 1].integer("size") <= kLogTail) tail += pieces[--last].integer("size");
  if (first == last) return;
  for (size_t i = first; i < last; ++i)
    missing += pieces[i].text("kind") == "cut" ? std::stoll(pieces[i].text("cut")) : pieces[i].integer("size");
  const int64_t from = pieces[first].integer("seq"), to = pieces[last - 1].integer("seq");
  execute(session_, "DELETE FROM job_events WHERE job = ? AND kind IN ('logs', 'cut') AND seq BETWEEN ? AND ?",
          {job_.id, from, to});
  execute(session_, "INSERT INTO job_events (job, seq, kind, size, data) VALUES (?, ?, 'cut', 0, ?)",
          {job_.id, from, std::to_string(missing)});
  log_bytes_ = head + tail;
}

void JobChange::set_progress(const JobProgress& progress) {
  const std::string json = dump({{"stage", progress.stage},
                                 {"done", progress.done},
                                 {"total", progress.total},
                                 {"eta_seconds", progress.eta_seconds}});
  set("progress", json);
  forget_events({"progress"});
  event("progress", json);
}

void JobChange::set_preview(const std::string& file_id) {
  set("preview_file", file_id);
  forget_events({"preview"});
  event("preview", file_id);
}

void JobChange::set_output(const Json& output) {
  set("output", dump(output));
  if (output == job_.output || output.is_null()) return;
  if (output.is_array()) {
    for (size_t i = job_.output.is_array() ? job_.output.size() : 0; i < output.size(); ++i)
      event("output", dump(output[i]));
  } else {
    event("output", dump(output));
  }
  deliver("output");
}

void JobChange::begin(Time now) {
  set("status", "processing");
  set("started_at", now);
  event("status", "processing");
  deliver("start");
}

void JobChange::end(JobStatus status, const Json& output, const std::optional<std::string>& error, Json metrics) {
  const Time time = now();
  if (!metrics.is_object()) metrics = Json::object();
  metrics["total_time"] = seconds(job_.created_at, time);
  if (job_.started_at && !metrics.contains("predict_time")) metrics["predict_time"] = seconds(*job_.started_at, time);
  set_output(output);
  set("status", std::string(name(status)));
  set("error", error ? Value(clean_text(*error)) : Value(nullptr));
  set("metrics", dump(metrics));
  set("completed_at", time);
  set("worker", "");
  set("preview_file", "");
  forget_events({"progress", "preview"});
  event("status", std::string(name(status)));
  execute(session_, "DELETE FROM job_secrets WHERE job = ?", {job_.id});
  deliver("completed");
}

void JobChange::requeue() {
  set("status", "starting");
  set("worker", "");
  set("started_at", nullptr);
  set("output", "null");
  set("progress", "{}");
  set("preview_file", "");
  forget_events({"progress", "preview", "output"});
  event("status", "starting");
  notify(session_, kQueueChannel, job_.id);
}

void JobChange::save() {
  if (change_ == job_.change) ++change_;
  set("change", change_);
  set("log_bytes", log_bytes_);
  std::string text;
  Values values;
  for (const auto& [column, value] : columns_) {
    text += fmt::format("{}{} = ?", text.empty() ? "" : ", ", column);
    values.push_back(value);
  }
  values.emplace_back(job_.id);
  execute(session_, fmt::format("UPDATE jobs SET {} WHERE id = ?", text), values);
  notify(session_, kJobChannel, job_.id);
}

}  // namespace calotype::store
