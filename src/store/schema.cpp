#include "store/schema.h"

namespace calotype::store {
namespace {

// One statement per string. Columns are BIGINT or TEXT, times are microseconds, flags 0 or 1, lists and objects JSON.
// A change is a new step at the end; steps that were released stay as they are.
using Step = std::vector<const char*>;

const Step kJobs = {
    R"(CREATE TABLE jobs (
         id TEXT PRIMARY KEY, kind TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, input TEXT NOT NULL,
         prompt TEXT NOT NULL, source TEXT NOT NULL, deployment TEXT NOT NULL, destination TEXT NOT NULL,
         webhook_url TEXT NOT NULL, webhook_events TEXT NOT NULL, data_uris BIGINT NOT NULL, deadline BIGINT,
         token_id TEXT NOT NULL, status TEXT NOT NULL, output TEXT NOT NULL, metrics TEXT NOT NULL, error TEXT,
         progress TEXT NOT NULL, preview_file TEXT NOT NULL, stream_token TEXT NOT NULL UNIQUE,
         created_at BIGINT NOT NULL, started_at BIGINT, completed_at BIGINT, data_removed BIGINT NOT NULL,
         attempt BIGINT NOT NULL, losses BIGINT NOT NULL, worker TEXT NOT NULL, heartbeat_at BIGINT NOT NULL,
         change BIGINT NOT NULL, log_bytes BIGINT NOT NULL))",
    "CREATE INDEX jobs_by_time ON jobs (created_at, id)",
    "CREATE INDEX jobs_by_kind ON jobs (kind, created_at, id)",
    "CREATE INDEX jobs_waiting ON jobs (kind, created_at, id) WHERE status = 'starting' AND worker = ''",
    "CREATE INDEX jobs_open ON jobs (id) WHERE status IN ('starting', 'processing')",
    "CREATE TABLE job_events (job TEXT NOT NULL, seq BIGINT NOT NULL, kind TEXT NOT NULL, size BIGINT NOT NULL, "
    "data TEXT NOT NULL, PRIMARY KEY (job, seq))",
    "CREATE TABLE job_secrets (job TEXT NOT NULL, name TEXT NOT NULL, sealed TEXT NOT NULL, PRIMARY KEY (job, name))",
    R"(CREATE TABLE deliveries (
         message_id TEXT PRIMARY KEY, job TEXT NOT NULL, seq BIGINT NOT NULL, url TEXT NOT NULL, event TEXT NOT NULL,
         state TEXT NOT NULL, attempts BIGINT NOT NULL, created_at BIGINT NOT NULL, due_at BIGINT NOT NULL,
         next_at BIGINT NOT NULL, last_status BIGINT NOT NULL, last_error TEXT NOT NULL))",
    "CREATE INDEX deliveries_open ON deliveries (next_at) WHERE state IN ('waiting', 'taken')",
    "CREATE INDEX deliveries_by_job ON deliveries (job, seq)",
};

const Step kModels = {
    R"(CREATE TABLE models (
         owner TEXT NOT NULL, name TEXT NOT NULL, visibility TEXT NOT NULL, hardware TEXT NOT NULL,
         description TEXT NOT NULL, github_url TEXT NOT NULL, paper_url TEXT NOT NULL, license_url TEXT NOT NULL,
         cover_image_url TEXT NOT NULL, readme TEXT NOT NULL, run_count BIGINT NOT NULL, created_at BIGINT NOT NULL,
         example_job TEXT NOT NULL, latest_version TEXT NOT NULL, version_created_at BIGINT NOT NULL,
         PRIMARY KEY (owner, name)))",
    R"(CREATE TABLE versions (
         owner TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, created_at BIGINT NOT NULL, about TEXT NOT NULL,
         PRIMARY KEY (owner, name, id)))",
    "CREATE INDEX versions_by_id ON versions (id)",
    R"(CREATE TABLE deployments (
         owner TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, hardware TEXT NOT NULL,
         number BIGINT NOT NULL, min_instances BIGINT NOT NULL, max_instances BIGINT NOT NULL,
         created_at BIGINT NOT NULL, PRIMARY KEY (owner, name)))",
};

const Step kFilesAndPeople = {
    R"(CREATE TABLE files (
         id TEXT PRIMARY KEY, name TEXT NOT NULL, content_type TEXT NOT NULL, size BIGINT NOT NULL,
         sha256 TEXT NOT NULL, md5 TEXT NOT NULL, metadata TEXT NOT NULL, created_at BIGINT NOT NULL,
         expires_at BIGINT, token TEXT NOT NULL UNIQUE, purpose TEXT NOT NULL, job TEXT NOT NULL))",
    "CREATE INDEX files_by_purpose ON files (purpose, created_at, id)",
    "CREATE INDEX files_by_job ON files (job) WHERE job <> ''",
    "CREATE INDEX files_by_expiry ON files (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE tokens (id TEXT PRIMARY KEY, name TEXT NOT NULL, hint TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, "
    "created_at BIGINT NOT NULL, last_used_at BIGINT)",
    R"(CREATE TABLE workers (
         id TEXT PRIMARY KEY, host TEXT NOT NULL, pid BIGINT NOT NULL, device TEXT NOT NULL, model TEXT NOT NULL,
         job TEXT NOT NULL, started_at BIGINT NOT NULL, heartbeat_at BIGINT NOT NULL))",
};

const Step kDialectsOfWebhooks = {
    "ALTER TABLE jobs ADD COLUMN webhook_dialect TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE jobs ADD COLUMN webhook_secret TEXT NOT NULL DEFAULT ''",
};

const std::vector<std::vector<Step>> kVersions = {{kJobs, kModels, kFilesAndPeople}, {kDialectsOfWebhooks}};

}  // namespace

void bring_up_to_date(Session& session) {
  alone(session, "calotype schema");
  execute(session, "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)");
  const auto row = first_row(session, "SELECT version FROM schema_version");
  const int64_t have = row ? row->integer("version") : 0, want = static_cast<int64_t>(kVersions.size());
  base::check(have <= want, base::ErrorKind::conflict,
              "the database has tables of version {}, this program knows versions up to {}; use the newer program",
              have, want);
  if (have == want) return;
  for (int64_t version = have; version < want; ++version)
    for (const Step& step : kVersions[static_cast<size_t>(version)])
      for (const char* statement : step) execute(session, statement);
  execute(session, "DELETE FROM schema_version");
  execute(session, "INSERT INTO schema_version (version) VALUES (?)", {want});
}

}  // namespace calotype::store
