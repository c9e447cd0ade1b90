#include "store/worker_registry.h"

#include "store/database.h"
#include "store/sql.h"

namespace calotype::store {

WorkerRegistry::WorkerRegistry(std::shared_ptr<Database> database) : database_(std::move(database)) {}

void WorkerRegistry::heartbeat(const WorkerEntry& worker) {
  const Time time = now();
  database_->transaction(
      [&](Session& session) {
        execute(
            session,
            "INSERT INTO workers (id, host, pid, device, model, job, started_at, heartbeat_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET host = excluded.host, pid = excluded.pid, "
            "device = excluded.device, model = excluded.model, job = excluded.job, heartbeat_at = "
            "excluded.heartbeat_at",
            {clean_text(worker.id), clean_text(worker.host), worker.pid, clean_text(worker.device),
             clean_text(worker.model), clean_text(worker.job), worker.started_at == 0 ? time : worker.started_at,
             time});
      },
      Durability::relaxed);
}

void WorkerRegistry::remove(const std::string& id) {
  database_->transaction(
      [&](Session& session) { execute(session, "DELETE FROM workers WHERE id = ?", {clean_text(id)}); },
      Durability::relaxed);
}

std::vector<WorkerEntry> WorkerRegistry::list(Time since) {
  Connection session = database_->session();
  std::vector<WorkerEntry> all;
  for (const Row& row : rows(session,
                             "SELECT id, host, pid, device, model, job, started_at, heartbeat_at FROM workers "
                             "WHERE heartbeat_at >= ? ORDER BY id",
                             {since}))
    all.push_back({.id = row.text("id"),
                   .host = row.text("host"),
                   .pid = row.integer("pid"),
                   .device = row.text("device"),
                   .model = row.text("model"),
                   .job = row.text("job"),
                   .started_at = row.integer("started_at"),
                   .heartbeat_at = row.integer("heartbeat_at")});
  return all;
}

void WorkerRegistry::forget(Time time) {
  database_->transaction(
      [&](Session& session) { execute(session, "DELETE FROM workers WHERE heartbeat_at < ?", {time}); },
      Durability::relaxed);
}

}  // namespace calotype::store
