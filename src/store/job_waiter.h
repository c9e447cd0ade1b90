// One thread that asks the database whether jobs have changed, for all threads that wait. PostgreSQL tells, and is
// asked now and then all the same (notifications.h). Only src/store includes this.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "store/database.h"
#include "store/notifications.h"

namespace calotype::store {

class JobWaiter {
 public:
  explicit JobWaiter(std::shared_ptr<Database> database);
  ~JobWaiter();

  bool wait(const std::string& id, int64_t after_change, std::chrono::milliseconds timeout);
  /// This process committed a change of the job: look now.
  void poke(const std::string& id);

  /// A number that grows whenever PostgreSQL tells that a job was queued.
  int64_t queue_news();
  /// For workers: until `news` has grown, or it is time to ask; at most `timeout`.
  void wait_for_queue(int64_t news, std::chrono::nanoseconds timeout);

 private:
  struct Watched {
    int waiting = 0;
    bool asked = false, missing = false;
    int64_t change = -1;
    std::condition_variable changed;
  };

  void run();
  void look(Poco::Data::Session& session, int64_t& version, bool all);
  std::vector<std::string> to_ask(bool all);
  void listen();
  void hear(const std::string& channel, const std::string& text);
  bool listening() const { return notifications_ && notifications_->listening(); }
  void tell(const std::vector<std::string>& ids, const std::map<std::string, int64_t>& changes);

  std::shared_ptr<Database> database_;
  std::mutex mutex_;
  std::condition_variable work_, queue_;
  std::map<std::string, Watched> watched_;
  bool stop_ = false, poked_ = false;
  bool all_ = true;  ///< any of the watched jobs may have changed
  int64_t queue_news_ = 0;
  std::thread thread_;
  std::unique_ptr<Notifications> notifications_;  ///< last: its thread calls hear()
};

}  // namespace calotype::store
