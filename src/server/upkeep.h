// What has to be done now and then: jobs of vanished workers, deadlines, expired files, old records.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "server/site.h"

namespace calotype::server {

/// A thread that works until it is destroyed. Several servers on one store do no harm.
class Upkeep {
 public:
  explicit Upkeep(Site& site);
  ~Upkeep();

 private:
  void run();

  Site& site_;
  std::mutex mutex_;
  std::condition_variable stop_signal_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace calotype::server
