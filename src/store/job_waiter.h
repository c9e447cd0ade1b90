// One thread that asks the database whether jobs have changed, for all threads that wait. Only src/store includes this.
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

namespace calotype::store {

class JobWaiter {
 public:
  explicit JobWaiter(std::shared_ptr<Database> database);
  ~JobWaiter();

  bool wait(const std::string& id, int64_t after_change, std::chrono::milliseconds timeout);
  /// Something was committed by this process: look now.
  void poke();

 private:
  struct Watched {
    int waiting = 0;
    bool asked = false, missing = false;
    int64_t change = -1;
    std::condition_variable changed;
  };

  void run();
  void look(Poco::Data::Session& session, int64_t& version);
  std::vector<std::string> to_ask(bool all);
  void tell(const std::vector<std::string>& ids, const std::map<std::string, int64_t>& changes);

  std::shared_ptr<Database> database_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::map<std::string, Watched> watched_;
  bool stop_ = false, poked_ = false;
  std::thread thread_;
};

}  // namespace calotype::store
