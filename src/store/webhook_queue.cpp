#include "store/webhook_queue.h"

#include <algorithm>
#include <set>

#include "store/database.h"
#include "store/ids.h"
#include "store/sql.h"
#include "store/webhook_outbox.h"

namespace calotype::store {
namespace {

constexpr std::string_view kColumns =
    "message_id, job, url, event, state, attempts, created_at, next_at, last_status, last_error";

Delivery read(const Row& row) {
  return {.message_id = row.text("message_id"),
          .job = row.text("job"),
          .url = row.text("url"),
          .event = row.text("event"),
          .state = row.text("state"),
          .attempts = static_cast<int>(row.integer("attempts")),
          .created_at = row.integer("created_at"),
          .next_at = row.integer("next_at"),
          .last_status = static_cast<int>(row.integer("last_status")),
          .last_error = row.text("last_error")};
}

void insert(Session& session, const DeliveryCause& cause, std::string_view event, Time due) {
  execute(session,
          "INSERT INTO deliveries (message_id, job, seq, url, event, state, attempts, created_at, due_at, next_at, "
          "last_status, last_error) VALUES (?, ?, ?, ?, ?, 'waiting', 0, ?, ?, ?, 0, '')",
          {"msg_" + new_id(), cause.job, cause.change, cause.url, std::string(event), now(), due, due});
}

// One waiting delivery speaks for all changes until it is sent. Finished ones are replaced: a training of 20 minutes
// would leave thousands.
void enqueue_repeated(Session& session, const DeliveryCause& cause, std::string_view event) {
  const Values key = {cause.job, std::string(event)};
  const auto before =
      first_row(session,
                "SELECT MAX(due_at) AS due, SUM(CASE WHEN state = 'waiting' THEN 1 ELSE 0 END) AS waiting "
                "FROM deliveries WHERE job = ? AND event = ?",
                key);
  if (before && before->integer("waiting") > 0) return;
  execute(session, "DELETE FROM deliveries WHERE job = ? AND event = ? AND state IN ('done', 'given_up')", key);
  const Time earliest = before ? before->integer("due") + kWebhookSpacing : 0;
  insert(session, cause, event, std::max(now(), earliest));
}

}  // namespace

void enqueue_delivery(Session& session, const DeliveryCause& cause, std::string_view event) {
  if (event == "completed")  // the completed one carries everything
    execute(session, "DELETE FROM deliveries WHERE job = ? AND event IN ('output', 'logs') AND state = 'waiting'",
            {cause.job});
  if (cause.url.empty() || std::ranges::find(cause.events, event) == cause.events.end()) return;
  if (event == "output" || event == "logs")
    enqueue_repeated(session, cause, event);
  else
    insert(session, cause, event, now());
}

WebhookQueue::WebhookQueue(std::shared_ptr<Database> database) : database_(std::move(database)) {}

std::vector<Delivery> WebhookQueue::take(Time now, int limit) {
  if (const auto due = next_due(); !due || *due > now) return {};  // without a write transaction
  std::vector<Delivery> taken;
  database_->transaction(
      [&](Session& session) {
        taken.clear();
        alone(session, "calotype deliveries");
        const Rows due =
            rows(session,
                 fmt::format("SELECT {} FROM deliveries d WHERE state IN ('waiting', 'taken') AND next_at <= ? "
                             "AND NOT EXISTS (SELECT 1 FROM deliveries t WHERE t.job = d.job AND "
                             "t.state = 'taken' AND t.next_at > ?) ORDER BY created_at, seq LIMIT ?",
                             kColumns),
                 {now, now, int64_t{4} * limit});
        std::set<std::string> jobs;
        for (const Row& row : due) {
          if (static_cast<int>(taken.size()) == limit || !jobs.insert(row.text("job")).second) continue;
          // due_at: when it was sent, from which the next one of its kind keeps its distance
          execute(session, "UPDATE deliveries SET state = 'taken', due_at = ?, next_at = ? WHERE message_id = ?",
                  {now, now + kDeliveryLease, row.text("message_id")});
          taken.push_back(read(row));
          taken.back().state = "taken";
        }
      },
      Durability::relaxed);
  return taken;
}

void WebhookQueue::done(const Delivery& delivery, int status) { settle(delivery, "done", 0, status, ""); }

void WebhookQueue::again(const Delivery& delivery, Time next_at, int status, const std::string& error) {
  settle(delivery, "waiting", next_at, status, error);
}

void WebhookQueue::give_up(const Delivery& delivery, int status, const std::string& error) {
  settle(delivery, "given_up", 0, status, error);
}

void WebhookQueue::settle(const Delivery& delivery, const std::string& state, Time next_at, int status,
                          const std::string& error) {
  database_->transaction([&](Session& session) {
    execute(session,
            "UPDATE deliveries SET state = ?, next_at = ?, attempts = attempts + 1, last_status = ?, last_error = ? "
            "WHERE message_id = ? AND state = 'taken'",
            {state, next_at, int64_t{status}, clean_text(error.substr(0, 500)), delivery.message_id});
  });
}

std::optional<Time> WebhookQueue::next_due() {
  Connection session = database_->session();
  const auto row = first_row(session, "SELECT MIN(next_at) AS due FROM deliveries WHERE state IN ('waiting', 'taken')");
  return row ? row->maybe_integer("due") : std::nullopt;
}

std::vector<Delivery> WebhookQueue::of_job(const std::string& job) {
  Connection session = database_->session();
  std::vector<Delivery> all;
  for (const Row& row :
       rows(session, fmt::format("SELECT {} FROM deliveries WHERE job = ? ORDER BY seq", kColumns), {job}))
    all.push_back(read(row));
  return all;
}

int64_t WebhookQueue::forget(Time time) {
  int64_t count = 0;
  database_->transaction([&](Session& session) {
    count = execute(session, "DELETE FROM deliveries WHERE state IN ('done', 'given_up') AND created_at < ?", {time});
  });
  return count;
}

}  // namespace calotype::store
