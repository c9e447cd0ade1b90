#include "store/connection_pool.h"

#include <Poco/Data/PostgreSQL/Connector.h>
#include <Poco/Data/SQLite/Connector.h>

#include <optional>

#include "store/database.h"
#include "store/sql.h"

namespace calotype::store {
using base::ErrorKind;
namespace {

constexpr int kMaximum = 24;  // PostgreSQL allows 100 for all processes together

void register_connectors() {
  static const bool done = [] {
    Poco::Data::SQLite::Connector::registerConnector();
    Poco::Data::PostgreSQL::Connector::registerConnector();
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace

Connection::~Connection() {
  if (pool_) pool_->give_back(session_);
}

ConnectionPool::ConnectionPool(bool postgres, std::string connection)
    : postgres_(postgres), connection_(std::move(connection)) {
  register_connectors();
}

Session ConnectionPool::take(std::chrono::seconds patience) {
  {
    std::unique_lock lock(mutex_);
    base::check(returned_.wait_for(lock, patience, [&] { return in_use_ < kMaximum; }), ErrorKind::internal,
                "the database is too busy: all {} connections are in use", kMaximum);
    ++in_use_;
    if (!idle_.empty()) {
      Session session = idle_.back();  // the warmest one
      idle_.pop_back();
      return session;
    }
  }
  try {
    return open();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    --in_use_;
    returned_.notify_one();
    throw;
  }
}

// A connection that broke says so; the idle ones of the same server are hardly better, so all are opened anew.
void ConnectionPool::give_back(Session session) {
  const bool alive = session.isConnected();
  std::vector<Session> dead;
  {
    const std::lock_guard lock(mutex_);
    --in_use_;
    if (alive)
      idle_.push_back(std::move(session));
    else
      dead.swap(idle_);
  }
  returned_.notify_one();
}

Session ConnectionPool::open() const {
  std::optional<Session> session;
  try {
    session.emplace(postgres_ ? "PostgreSQL" : "SQLite", connection_);
  } catch (const Poco::Exception& e) {
    base::fail(ErrorKind::not_found, "the database cannot be opened: {}", base::printable(e.displayText(), 400));
  }
  if (postgres_)
    rows(*session, "SET client_min_messages TO WARNING");  // libpq would print notices
  else
    for (const char* pragma : {"PRAGMA busy_timeout = 10000", "PRAGMA synchronous = FULL",
                               "PRAGMA journal_size_limit = 67108864", "PRAGMA cache_size = -8000"})
      rows(*session, pragma);
  return *session;
}

}  // namespace calotype::store
