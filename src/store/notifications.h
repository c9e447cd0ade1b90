// What PostgreSQL tells at once about commits of all processes: NOTIFY and LISTEN. Only src/store includes this.
//
//   notify(session, kJobChannel, job.id);        // in a transaction: told when it commits; nothing on SQLite
//   Notifications heard(database->libpq_words(), [&](const std::string& channel, const std::string& text) { … });
//
// Nobody may rely on being told: connections break, and poolers of connections swallow LISTEN. Whoever waits also asks
// now and then. Not Poco::Data: it has no way to wait for notifications.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "store/sql.h"

namespace calotype::store {

constexpr std::string_view kJobChannel = "calotype_jobs";     ///< the text is the id of a job that changed
constexpr std::string_view kQueueChannel = "calotype_queue";  ///< a job was queued

void notify(Session& session, std::string_view channel, const std::string& text);

class Notifications {
 public:
  /// Called by a thread of this object, also with two empty strings: much may have happened while nobody listened.
  using Hear = std::function<void(const std::string& channel, const std::string& text)>;

  /// `connection`: in libpq's words. A connection that breaks is made anew.
  Notifications(std::string connection, Hear hear);
  ~Notifications();
  Notifications(const Notifications&) = delete;
  Notifications& operator=(const Notifications&) = delete;

  bool listening() const { return listening_; }

 private:
  void run();
  void listen();
  bool sleep(int milliseconds) const;

  const std::string connection_;
  const Hear hear_;
  std::atomic<bool> listening_ = false;
  int stop_;  ///< an eventfd: readable when it is time to end
  std::thread thread_;
};

}  // namespace calotype::store
