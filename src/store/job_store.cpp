#include "store/job_store.h"

#include <algorithm>

#include "base/error.h"
#include "hub/signature.h"
#include "store/database.h"
#include "store/ids.h"
#include "store/job_change.h"
#include "store/job_waiter.h"
#include "store/notifications.h"
#include "store/page.h"

namespace calotype::store {
using base::ErrorKind;
namespace {

constexpr size_t kSearchableBytes = 4000;

/// What list() searches: the prompt, ASCII in lower case.
std::string searchable(const Json& input) {
  const auto prompt = input.is_object() ? input.find("prompt") : input.end();
  if (!input.is_object() || prompt == input.end() || !prompt->is_string()) return "";
  std::string text = clean_text(prompt->get<std::string>().substr(0, kSearchableBytes));
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

void check_request(const NewJob& request) {
  if (!request.id.empty()) check_id("id", request.id);
  base::check(request.input.is_object(), ErrorKind::bad_input, "input: expected an object");
  base::check(!request.model.empty(), ErrorKind::bad_input, "model: is missing");
}

Job to_job(const NewJob& r) {
  Job job{.id = r.id.empty() ? new_id() : r.id,
          .kind = r.kind,
          .model = clean_text(r.model),
          .version = clean_text(r.version),
          .input = r.input,
          .source = clean_text(r.source),
          .deployment = clean_text(r.deployment),
          .destination = clean_text(r.destination),
          .webhook = r.webhook,
          .data_uris = r.data_uris,
          .deadline = r.deadline,
          .token_id = clean_text(r.token_id)};
  if (job.webhook) {
    job.webhook->url = clean_text(job.webhook->url);
    job.webhook->secret.clear();
  }
  job.stream_token = hub::random_token(24);
  job.created_at = now();
  job.change = 1;
  return job;
}

bool insert(Session& session, const Job& job) {
  const Webhook webhook = job.webhook.value_or(Webhook());
  return execute(
             session,
             "INSERT INTO jobs (id, kind, model, version, input, prompt, source, deployment, destination, webhook_url, "
             "webhook_events, webhook_dialect, data_uris, deadline, token_id, status, output, metrics, error, "
             "progress, preview_file, "
             "stream_token, created_at, started_at, completed_at, data_removed, attempt, losses, worker, heartbeat_at, "
             "change, log_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'starting', 'null', '{}', NULL, "
             "'{}', "
             "'', ?, ?, NULL, NULL, 0, 0, 0, '', 0, ?, 0) ON CONFLICT (id) DO NOTHING",
             {job.id, std::string(name(job.kind)), job.model, job.version, dump(job.input), searchable(job.input),
              job.source, job.deployment, job.destination, webhook.url, dump(Json(webhook.events)),
              clean_text(webhook.dialect), int64_t{job.data_uris}, value_or_null(job.deadline), job.token_id,
              job.stream_token, job.created_at, job.change}) == 1;
}

void check_same(const Job& have, const Job& asked) {
  const auto url = [](const Job& job) { return job.webhook ? job.webhook->url : ""; };
  const bool same = have.kind == asked.kind && have.model == asked.model && have.version == asked.version &&
                    dump(have.input) == dump(asked.input) && have.deployment == asked.deployment &&
                    have.destination == asked.destination && have.token_id == asked.token_id && url(have) == url(asked);
  base::check(same, ErrorKind::conflict, "id: there is another job with the id {}; choose a new one", asked.id);
}

std::string webhook_context(const std::string& id) { return "job/" + id + "/webhook"; }

void count_run(Session& session, const std::string& model) {
  const size_t slash = model.find('/');
  if (slash != std::string::npos)
    execute(session, "UPDATE models SET run_count = run_count + 1 WHERE owner = ? AND name = ?",
            {model.substr(0, slash), model.substr(slash + 1)});
}

Job read_whole(Session& session, const Row& row) {
  Job job = read_job(row);
  read_logs(session, {&job});
  return job;
}

Conditions conditions_of(const JobQuery& query) {
  Conditions conditions;
  if (query.kind) conditions.add("kind = ?", {std::string(name(*query.kind))});
  if (query.status) conditions.add("status = ?", {std::string(name(*query.status))});
  if (query.created_after) conditions.add("created_at >= ?", {*query.created_after});
  if (query.created_before) conditions.add("created_at <= ?", {*query.created_before});
  if (!query.search.empty()) conditions.add("prompt LIKE ? ESCAPE '\\'", {like_pattern(query.search)});
  if (!query.model.empty()) conditions.add("model = ?", {clean_text(query.model)});
  if (!query.source.empty()) conditions.add("source = ?", {clean_text(query.source)});
  return conditions;
}

}  // namespace

JobStore::JobStore(std::shared_ptr<Database> database, SecretBox secrets)
    : database_(std::move(database)), secrets_(std::move(secrets)), waiter_(std::make_unique<JobWaiter>(database_)) {}

JobStore::~JobStore() = default;

Job JobStore::create(const NewJob& request) {
  check_request(request);
  const Job job = to_job(request);
  Job result;
  database_->transaction([&](Session& session) {
    result = job;
    if (insert(session, job)) {
      for (const auto& [field, secret] : request.secrets)
        execute(session, "INSERT INTO job_secrets (job, name, sealed) VALUES (?, ?, ?)",
                {job.id, clean_text(field), secrets_.seal(secret, "job/" + job.id + "/" + clean_text(field))});
      if (request.webhook && !request.webhook->secret.empty())
        execute(session, "UPDATE jobs SET webhook_secret = ? WHERE id = ?",
                {secrets_.seal(request.webhook->secret, webhook_context(job.id)), job.id});
      count_run(session, job.model);
      notify(session, kQueueChannel, job.id);
    } else {
      result = read_whole(session, *lock_job(session, job.id));
      check_same(result, job);
    }
  });
  waiter_->poke(result.id);
  return result;
}

std::optional<Job> JobStore::find(const std::string& id) {
  Connection session = database_->session();
  const auto row = first_row(session, fmt::format("SELECT {} FROM jobs WHERE id = ?", kJobColumns), {clean_text(id)});
  return row ? std::optional(read_whole(session, *row)) : std::nullopt;
}

std::optional<Job> JobStore::find_by_stream(const std::string& token) {
  Connection session = database_->session();
  const auto row =
      first_row(session, fmt::format("SELECT {} FROM jobs WHERE stream_token = ?", kJobColumns), {clean_text(token)});
  return row ? std::optional(read_whole(session, *row)) : std::nullopt;
}

JobPage JobStore::list(const JobQuery& query) {
  Connection session = database_->session();
  const RowPage rows = read_page(session, {.columns = kJobColumns,
                                           .table = "jobs",
                                           .key = "created_at",
                                           .id = "id",
                                           .conditions = conditions_of(query),
                                           .cursor = query.cursor,
                                           .limit = query.limit});
  JobPage page{.next = rows.next, .previous = rows.previous};
  for (const Row& row : rows.rows) page.jobs.push_back(read_job(row));
  std::vector<Job*> jobs;
  for (Job& job : page.jobs) jobs.push_back(&job);
  read_logs(session, jobs);
  return page;
}

int64_t JobStore::queue_place(const std::string& id) {
  Connection session = database_->session();
  const auto row =
      first_row(session, "SELECT kind, status, worker, created_at FROM jobs WHERE id = ?", {clean_text(id)});
  base::check(row.has_value(), ErrorKind::not_found, "there is no job {}", base::printable(id));
  if (row->text("status") != "starting" || !row->text("worker").empty()) return 0;
  const bool training = row->text("kind") == "training";
  return first_row(session,
                   fmt::format("SELECT COUNT(*) AS place FROM jobs WHERE status = 'starting' AND worker = '' AND "
                               "((kind = ? AND (created_at, id) < (?, ?)){})",
                               training ? " OR kind = 'prediction'" : ""),
                   {row->text("kind"), row->integer("created_at"), id})
      ->integer("place");
}

Job JobStore::cancel(const std::string& id) {
  Job result;
  database_->transaction([&](Session& session) {
    const auto row = lock_job(session, clean_text(id));
    base::check(row.has_value(), ErrorKind::not_found, "there is no job {}", base::printable(id));
    JobChange job(session, *row);
    if (!is_terminal(job.job().status)) {
      job.end(JobStatus::canceled, nullptr, {}, Json::object());
      job.save();
    }
    result = read_whole(session, *lock_job(session, clean_text(id)));
  });
  waiter_->poke(result.id);
  return result;
}

std::vector<JobEvent> JobStore::events(const std::string& id, int64_t after_seq) {
  Connection session = database_->session();
  std::vector<JobEvent> events;
  for (const Row& row : rows(session,
                             "SELECT seq, kind, data FROM job_events WHERE job = ? AND seq > ? AND kind <> 'cut' "
                             "ORDER BY seq LIMIT 1000",
                             {clean_text(id), after_seq}))
    events.push_back({.seq = row.integer("seq"), .kind = row.text("kind"), .data = row.text("data")});
  return events;
}

bool JobStore::wait_for_change(const std::string& id, int64_t after_change, std::chrono::milliseconds timeout) {
  return waiter_->wait(clean_text(id), after_change, timeout);
}

std::string JobStore::webhook_secret(const std::string& id) {
  Connection session = database_->session();
  const auto row = first_row(session, "SELECT webhook_secret FROM jobs WHERE id = ?", {clean_text(id)});
  const std::string sealed = row ? row->text("webhook_secret") : "";
  return sealed.empty() ? "" : secrets_.unseal(sealed, webhook_context(id));
}

std::vector<JobCount> JobStore::counts() {
  Connection session = database_->session();
  std::vector<JobCount> counts;
  for (const Row& row :
       rows(session,
            "SELECT kind, status, CASE WHEN worker = '' THEN 0 ELSE 1 END AS claimed, COUNT(*) AS jobs "
            "FROM jobs GROUP BY kind, status, CASE WHEN worker = '' THEN 0 ELSE 1 END"))
    counts.push_back({.kind = parse_job_kind(row.text("kind")).value_or(JobKind::prediction),
                      .status = parse_job_status(row.text("status")).value_or(JobStatus::failed),
                      .claimed = row.flag("claimed"),
                      .count = row.integer("jobs")});
  return counts;
}

int64_t JobStore::forget(JobKind kind, Time completed_before) {
  int64_t count = 0;
  database_->transaction([&](Session& session) {
    const Rows old = rows(session,
                          "SELECT id FROM jobs WHERE kind = ? AND completed_at < ? AND data_removed = 0 AND "
                          "status IN ('succeeded', 'failed', 'canceled')",
                          {std::string(name(kind)), completed_before});
    count = static_cast<int64_t>(old.size());
    for (const Row& row : old) {
      execute(session, "DELETE FROM job_events WHERE job = ?", {row.text("id")});
      execute(session,
              "UPDATE jobs SET input = '{}', output = 'null', prompt = '', progress = '{}', log_bytes = 0, "
              "webhook_secret = '', "
              "data_removed = 1, "
              "change = change + 1 WHERE id = ?",
              {row.text("id")});
    }
  });
  return count;
}

}  // namespace calotype::store
