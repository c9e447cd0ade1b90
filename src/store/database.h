// The one database behind server and workers: a SQLite file (one machine) or PostgreSQL (several).
//
//   auto database = Database::open("sqlite:data/calotype.db");      // or "postgresql://user:password@host:5432/name"
//   database->transaction([&](Poco::Data::Session& session) { … }); // all of it or nothing
//   Connection connection = database->session();                   // for reading; converts to a Session&
//
// Opening creates the tables or brings them to this program's version. Only src/store speaks SQL; the server and the
// workers use job_store.h and its siblings (store.h opens all of them at once).
//
// Thread-safe. Sessions come from a pool, one per thread that is at work. A process that forks must open its own
// Database in the child; connections do not survive a fork.
#pragma once

#include <Poco/Data/Session.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace calotype::store {

/// What a commit survives. Both survive the death of every process; `full` also survives the loss of power.
enum class Durability { full, relaxed };

class ConnectionPool;

/// A session on loan: goes back to the pool with this object.
class Connection {
 public:
  Connection(std::shared_ptr<ConnectionPool> pool, Poco::Data::Session session)
      : pool_(std::move(pool)), session_(std::move(session)) {}
  ~Connection();
  Connection(Connection&& other) noexcept : pool_(std::move(other.pool_)), session_(std::move(other.session_)) {}
  Connection& operator=(Connection&&) = delete;
  /// Not for temporary objects: the session would already be somebody else's.
  operator Poco::Data::Session&() & { return session_; }

 private:
  std::shared_ptr<ConnectionPool> pool_;
  Poco::Data::Session session_;
};

class Database {
 public:
  /// "sqlite:PATH", a path that ends in .db, or "postgresql://…" (also "postgres://"). The folder of a SQLite file is
  /// made when missing. Errors: bad_input for another URL, not_found for a server that does not answer, conflict for
  /// tables of a newer program.
  static std::shared_ptr<Database> open(const std::string& url);
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  bool postgres() const { return postgres_; }
  /// PostgreSQL: what libpq wants to know for a connection of one's own.
  std::string libpq_words() const;

  /// Waits while all connections are in use.
  Connection session();

  /// Runs `work` in one write transaction; it is called again after a collision with another writer, so it must have no
  /// other effects. Its exceptions undo everything and pass through. A disk without space is an Error disk_full.
  void transaction(const std::function<void(Poco::Data::Session&)>& work, Durability durability = Durability::full);

  /// SQLite: a number that differs after any process committed something. Costs 10 µs. `session` must be the same in
  /// all calls.
  int64_t data_version(Poco::Data::Session& session);

 private:
  Database(bool postgres, const std::string& connection);
  void attempt(const std::function<void(Poco::Data::Session&)>& work, Durability durability);

  bool postgres_;
  std::shared_ptr<ConnectionPool> pool_;
  std::mutex writer_;  // SQLite: threads of one process queue here instead of polling the file lock
};

}  // namespace calotype::store
