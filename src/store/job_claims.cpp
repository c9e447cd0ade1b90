// What workers do with jobs: JobStore's second half.
#include <algorithm>

#include "base/error.h"
#include "store/job_change.h"
#include "store/job_store.h"
#include "store/job_waiter.h"

namespace calotype::store {
using base::ErrorKind;
namespace {

constexpr std::string_view kWaiting = "status = 'starting' AND worker = ''";

/// Changes when something is queued or taken; read from the index alone.
std::string queue_state(Session& session) {
  const auto row = first_row(
      session, fmt::format("SELECT COUNT(*) AS jobs, MAX(created_at) AS newest FROM jobs WHERE {}", kWaiting));
  return fmt::format("{} {}", row->integer("jobs"), row->integer("newest"));
}

bool has(const ClaimFilter& filter, JobKind kind) {
  return std::ranges::find(filter.kinds, kind) != filter.kinds.end();
}

struct Choice {
  JobKind kind;
  std::optional<Time> waiting_since;                 // created before this
  const std::vector<std::string>* models = nullptr;  // one of these
};

/// What a worker looks for, in this order.
std::vector<Choice> choices(const ClaimFilter& filter, Time now) {
  std::vector<Choice> all;
  if (has(filter, JobKind::training)) all.push_back({JobKind::training, now - filter.training_patience});
  for (const JobKind kind : {JobKind::prediction, JobKind::training}) {
    if (!has(filter, kind)) continue;
    if (!filter.preferred_models.empty()) {
      all.push_back({kind, now - filter.patience});
      all.push_back({kind, {}, &filter.preferred_models});
    }
    all.push_back({kind, {}});
  }
  return all;
}

std::optional<Row> find_waiting(Session& session, const ClaimFilter& filter, const Choice& choice, Time now) {
  Conditions conditions;
  conditions.add(kWaiting)
      .add("kind = ?", {std::string(name(choice.kind))})
      .add("(deadline IS NULL OR deadline > ?)", {now})
      .add_one_of("model", filter.models);
  if (choice.waiting_since) conditions.add("created_at < ?", {*choice.waiting_since});
  if (choice.models) conditions.add_one_of("model", *choice.models);
  return first_row(session,
                   fmt::format("SELECT {} FROM jobs{} ORDER BY created_at, id LIMIT 1{}", kJobColumns,
                               conditions.where(), for_update_skip_locked(session)),
                   conditions.values());
}

std::optional<Row> lock_claimed(Session& session, const Claim& claim) {
  auto row = lock_job(session, claim.job.id);
  if (!row || row->text("worker") != claim.worker || row->integer("attempt") != claim.attempt) return {};
  const auto status = parse_job_status(row->text("status"));
  return status && !is_terminal(*status) ? row : std::nullopt;
}

bool is_over(const Job& job, Time now) { return job.deadline && *job.deadline <= now; }

void lose(JobChange& job, Reconciled& count) {
  const int losses = job.job().losses + 1;
  job.set("losses", int64_t{losses});
  if (losses < kMaximumLosses) {
    job.append_log(fmt::format("\nThe worker {} was lost; the job goes to the next one (loss {} of at most {}).\n",
                               job.job().worker, losses, kMaximumLosses - 1));
    job.requeue();
    ++count.requeued;
  } else {
    job.end(JobStatus::failed, nullptr,
            fmt::format("{} workers were lost while they had this job, the last one was {}", losses, job.job().worker),
            {});
    ++count.failed;
  }
}

}  // namespace

std::optional<Claim> JobStore::claim(const std::string& worker, const ClaimFilter& filter) {
  base::check(!worker.empty(), ErrorKind::bad_input, "a worker needs a name");
  {
    Connection session = database_->session();
    const std::string state = queue_state(session);
    const std::lock_guard lock(mutex_);
    seen_queue_ = state;
    if (state.starts_with("0 ")) return {};  // without a write transaction
  }
  std::optional<Claim> claim;
  // A claim that the loss of power undoes puts the job back into the queue; its worker's writes are conflicts then.
  database_->transaction([&](Session& session) { claim = take(session, clean_text(worker), filter); },
                         Durability::relaxed);
  if (claim) waiter_->poke(claim->job.id);
  return claim;
}

std::optional<Claim> JobStore::take(Session& session, const std::string& worker, const ClaimFilter& filter) {
  const Time time = now();
  std::optional<Row> row;
  for (const Choice& choice : choices(filter, time)) {
    row = find_waiting(session, filter, choice, time);
    if (row) break;
  }
  if (!row) return {};
  Claim claim{.job = read_job(*row), .worker = worker};
  claim.job.worker = worker;
  claim.attempt = ++claim.job.attempt;
  JobChange change(session, *row);
  change.set("worker", worker);
  change.set("attempt", int64_t{claim.attempt});
  change.set("heartbeat_at", time);
  change.save();
  for (const Row& secret : rows(session, "SELECT name, sealed FROM job_secrets WHERE job = ?", {claim.job.id}))
    claim.secrets[secret.text("name")] =
        secrets_.unseal(secret.text("sealed"), "job/" + claim.job.id + "/" + secret.text("name"));
  return claim;
}

bool JobStore::wait_for_work(std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  std::string seen;
  {
    const std::lock_guard lock(mutex_);
    seen = seen_queue_;
  }
  for (;;) {
    const int64_t news = waiter_->queue_news();
    {
      Connection session = database_->session();
      if (queue_state(session) != seen) return true;
    }
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= left.zero()) return false;
    waiter_->wait_for_queue(news, left);
  }
}

void JobStore::change(const Claim& claim, Durability durability, const std::function<void(JobChange&)>& work) {
  database_->transaction(
      [&](Session& session) {
        const auto row = lock_claimed(session, claim);
        base::check(
            row.has_value(), ErrorKind::conflict,
            "job {} is no longer with worker {} (attempt {}): it was canceled, has ended or went to another worker",
            claim.job.id, claim.worker, claim.attempt);
        JobChange job(session, *row);
        work(job);
        job.set("heartbeat_at", now());
        job.save();
      },
      durability);
  waiter_->poke(claim.job.id);
}

void JobStore::start(const Claim& claim) {
  change(claim, Durability::relaxed, [](JobChange& job) {
    if (job.job().status == JobStatus::starting) job.begin(now());
  });
}

void JobStore::log(const Claim& claim, std::string_view text) {
  change(claim, Durability::relaxed, [&](JobChange& job) { job.append_log(text); });
}

void JobStore::progress(const Claim& claim, const JobProgress& progress) {
  change(claim, Durability::relaxed, [&](JobChange& job) { job.set_progress(progress); });
}

void JobStore::preview(const Claim& claim, const std::string& file_id) {
  change(claim, Durability::relaxed, [&](JobChange& job) { job.set_preview(file_id); });
}

void JobStore::output(const Claim& claim, const Json& output) {
  change(claim, Durability::relaxed, [&](JobChange& job) { job.set_output(output); });
}

void JobStore::finish(const Claim& claim, JobStatus status, const Json& output, const std::optional<std::string>& error,
                      const Json& metrics) {
  base::check(is_terminal(status), ErrorKind::internal, "a job cannot finish as {}", name(status));
  change(claim, Durability::full, [&](JobChange& job) { job.end(status, output, error, metrics); });
}

HeartbeatAnswer JobStore::heartbeat(const Claim& claim) {
  HeartbeatAnswer answer;
  database_->transaction(
      [&](Session& session) {
        answer = {};
        const auto row = lock_claimed(session, claim);
        if (row) {
          JobChange job(session, *row);
          answer.still_mine = !is_over(job.job(), now());
          if (answer.still_mine)  // no change that anybody waits for
            execute(session, "UPDATE jobs SET heartbeat_at = ? WHERE id = ?", {now(), claim.job.id});
          if (!answer.still_mine) {
            job.end(JobStatus::canceled, nullptr, {}, {});
            job.save();
          }
        }
        const auto state = first_row(session, "SELECT status FROM jobs WHERE id = ?", {claim.job.id});
        answer.canceled = state && state->text("status") == "canceled";
        answer.predictions_waiting =
            first_row(session,
                      fmt::format("SELECT COUNT(*) AS jobs FROM jobs WHERE {} AND kind = 'prediction'", kWaiting))
                ->integer("jobs");
      },
      Durability::relaxed);
  if (answer.canceled) waiter_->poke(claim.job.id);
  return answer;
}

void JobStore::release(const Claim& claim) {
  database_->transaction([&](Session& session) {
    const auto row = lock_claimed(session, claim);
    if (!row) return;
    JobChange job(session, *row);
    job.requeue();
    job.save();
  });
  waiter_->poke(claim.job.id);
}

Reconciled JobStore::reconcile(Time now) {
  Rows suspects;
  const std::string_view condition =
      "status IN ('starting', 'processing') AND ((worker <> '' AND heartbeat_at < ?) OR deadline <= ?)";
  {
    Connection session = database_->session();
    suspects = rows(session, fmt::format("SELECT id FROM jobs WHERE {}", condition), {now - kStaleAfter, now});
  }
  Reconciled total;
  for (const Row& suspect : suspects) {
    Reconciled count;
    database_->transaction([&](Session& session) {
      count = {};
      const auto row = lock_job(session, suspect.text("id"));
      if (!row) return;
      JobChange job(session, *row);
      if (is_terminal(job.job().status)) return;
      if (is_over(job.job(), now)) {
        job.end(JobStatus::canceled, nullptr, {}, {});
        ++count.canceled;
      } else if (!job.job().worker.empty() && row->integer("heartbeat_at") < now - kStaleAfter) {
        lose(job, count);
      } else {
        return;
      }
      job.save();
    });
    total.requeued += count.requeued;
    total.failed += count.failed;
    total.canceled += count.canceled;
    waiter_->poke(suspect.text("id"));
  }
  return total;
}

}  // namespace calotype::store
