// Open connections that wait for their next use. Not POCO's SessionPool: that one fails instead of waiting when all are
// in use, and its timer thread keeps a forked child from ever opening a database. Only src/store includes this.
#pragma once

#include <Poco/Data/Session.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

namespace calotype::store {

class ConnectionPool {
 public:
  ConnectionPool(bool postgres, std::string connection);

  /// Opens one when none is idle. Errors: not_found when the database cannot be opened, internal after `patience`.
  Poco::Data::Session take(std::chrono::seconds patience);
  void give_back(Poco::Data::Session session);
  const std::string& connection() const { return connection_; }

 private:
  Poco::Data::Session open() const;

  bool postgres_;
  std::string connection_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<Poco::Data::Session> idle_;
  int in_use_ = 0;
};

}  // namespace calotype::store
