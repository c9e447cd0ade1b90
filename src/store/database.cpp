#include "store/database.h"

#include <Poco/Data/DataException.h>
#include <Poco/Data/PostgreSQL/Connector.h>
#include <Poco/Data/SQLite/Connector.h>
#include <Poco/Data/SessionPool.h>
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "base/error.h"
#include "store/schema.h"
#include "store/sql.h"

namespace calotype::store {
namespace fs = std::filesystem;
using base::ErrorKind;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
namespace {

constexpr int kMaximumSessions = 24;  // PostgreSQL allows 100 for all processes together
constexpr auto kPatience = std::chrono::seconds(60);

void sleep_a_little(int attempt) {
  thread_local std::minstd_rand random(std::random_device{}());
  std::this_thread::sleep_for(milliseconds(1 + random() % (4u << std::min(attempt, 6))));
}

/// "postgresql://user:password@host/name" is what libpq itself understands; "sqlite:" is taken off.
std::pair<bool, std::string> parse_url(const std::string& url) {
  if (url.starts_with("postgresql://") || url.starts_with("postgres://")) return {true, url};
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
  if (path.has_parent_path()) fs::create_directories(path.parent_path());
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  base::check(descriptor >= 0, ErrorKind::bad_input, "{}: cannot open or create the database: {}", path.string(),
              std::strerror(errno));
  ::close(descriptor);
}

}  // namespace

class Database::Pool : public Poco::Data::SessionPool {
 public:
  Pool(const std::string& connector, const std::string& connection)
      : SessionPool(connector, connection, 0, kMaximumSessions, 300), sqlite_(connector == "SQLite") {}

 protected:
  void customizeSession(Session& session) override {
    if (!sqlite_) return;
    for (const char* pragma : {"PRAGMA busy_timeout = 10000", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON",
                               "PRAGMA journal_size_limit = 67108864", "PRAGMA cache_size = -8000"})
      rows(session, pragma);
  }

 private:
  bool sqlite_;
};

Database::Database(bool postgres, const std::string& connection)
    : postgres_(postgres), pool_(std::make_unique<Pool>(postgres ? "PostgreSQL" : "SQLite", connection)) {}

Database::~Database() = default;

std::shared_ptr<Database> Database::open(const std::string& url) {
  static const bool registered = [] {
    Poco::Data::SQLite::Connector::registerConnector();
    Poco::Data::PostgreSQL::Connector::registerConnector();
    return true;
  }();
  static_cast<void>(registered);
  const auto [postgres, connection] = parse_url(url);
  if (!postgres) make_sqlite_file(connection);
  std::shared_ptr<Database> database(new Database(postgres, connection));
  for (int attempt = 0;; ++attempt) {
    try {
      Session session = database->session();
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

Session Database::session() {
  const auto end = steady_clock::now() + kPatience;
  for (;;) {
    try {
      return pool_->get();
    } catch (const Poco::Data::SessionPoolExhaustedException&) {
      base::check(steady_clock::now() < end, ErrorKind::internal,
                  "the database is too busy: all {} connections are in use", kMaximumSessions);
      std::this_thread::sleep_for(milliseconds(2));
    } catch (const Poco::Exception& e) {
      base::fail(ErrorKind::not_found, "the database cannot be opened: {}", base::printable(e.displayText(), 400));
    }
  }
}

void Database::attempt(const std::function<void(Session&)>& work, Durability durability) {
  Session session = this->session();
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
  if (postgres_) return ++asked_;
  return rows(session, "PRAGMA data_version").at(0).integer("data_version");
}

}  // namespace calotype::store
