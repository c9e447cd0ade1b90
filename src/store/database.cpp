#include "store/database.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "base/error.h"
#include "store/connection_pool.h"
#include "store/postgres_url.h"
#include "store/schema.h"
#include "store/sql.h"

namespace calotype::store {
namespace fs = std::filesystem;
using base::ErrorKind;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
namespace {

constexpr auto kPatience = std::chrono::seconds(60);

void sleep_a_little(int attempt) {
  thread_local std::minstd_rand random(std::random_device{}());
  std::this_thread::sleep_for(milliseconds(1 + random() % (4u << std::min(attempt, 6))));
}

/// Whether it is PostgreSQL, and what POCO wants to know.
std::pair<bool, std::string> parse_url(const std::string& url) {
  if (url.starts_with("postgresql://") || url.starts_with("postgres://")) return {true, connection_words(url)};
  const bool prefixed = url.starts_with("sqlite:");
  base::check(prefixed || url.ends_with(".db"), ErrorKind::bad_input,
              "database: \"{}\" is no database, expected sqlite:PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME",
              base::printable(url.substr(0, url.find(':') + 1)));  // the rest may hold a password
  std::string path = prefixed ? url.substr(7) : url;
  if (path.starts_with("//")) path = path.substr(2);
  base::check(!path.empty(), ErrorKind::bad_input, "database: sqlite: without a path");
  return {false, path};
}

// Requests hold what users typed: nobody else on the machine may read them.
void make_sqlite_file(const fs::path& path) {
  std::error_code ignored;  // open() says why
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), ignored);
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  base::check(descriptor >= 0, ErrorKind::bad_input, "{}: cannot open or create the database: {}", path.string(),
              std::strerror(errno));
  ::close(descriptor);
}

}  // namespace

Database::Database(bool postgres, const std::string& connection)
    : postgres_(postgres), pool_(std::make_shared<ConnectionPool>(postgres, connection)) {}

std::shared_ptr<Database> Database::open(const std::string& url) {
  const auto [postgres, connection] = parse_url(url);
  if (!postgres) make_sqlite_file(connection);
  std::shared_ptr<Database> database(new Database(postgres, connection));
  for (int attempt = 0;; ++attempt) {
    try {
      Connection session = database->session();
      if (!postgres) rows(session, "PRAGMA journal_mode = WAL");  // stays with the file
      break;
    } catch (const Collision&) {  // another process is switching it at this moment
      if (attempt == 50) throw;
      sleep_a_little(attempt);
    }
  }
  database->transaction([](Session& session) { bring_up_to_date(session); });
  return database;
}

std::string Database::libpq_words() const { return pool_->connection(); }

Connection Database::session() { return {pool_, pool_->take(kPatience)}; }

void Database::attempt(const std::function<void(Session&)>& work, Durability durability) {
  Connection connection = this->session();
  Session& session = connection;
  const bool relaxed = durability == Durability::relaxed;
  if (relaxed && !postgres_) rows(session, "PRAGMA synchronous = NORMAL");
  try {
    execute(session, postgres_ ? "BEGIN" : "BEGIN IMMEDIATE");
    try {
      if (relaxed && postgres_) execute(session, "SET LOCAL synchronous_commit TO OFF");
      work(session);
      execute(session, "COMMIT");
    } catch (...) {
      try {
        execute(session, "ROLLBACK");
      } catch (const base::Error&) {  // the connection is gone, and the transaction with it
      }
      throw;
    }
  } catch (...) {
    if (relaxed && !postgres_) rows(session, "PRAGMA synchronous = FULL");
    throw;
  }
  if (relaxed && !postgres_) rows(session, "PRAGMA synchronous = FULL");
}

void Database::transaction(const std::function<void(Session&)>& work, Durability durability) {
  std::unique_lock lock(writer_, std::defer_lock);
  if (!postgres_) lock.lock();
  const auto end = steady_clock::now() + kPatience;
  for (int attempts = 0;; ++attempts) {
    try {
      return attempt(work, durability);
    } catch (const Collision&) {
      if (steady_clock::now() > end) throw;
      sleep_a_little(attempts);
    }
  }
}

int64_t Database::data_version(Session& session) {
  return rows(session, "PRAGMA data_version").at(0).integer("data_version");
}

}  // namespace calotype::store
