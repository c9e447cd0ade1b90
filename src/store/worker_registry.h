// Who works: each worker process says so now and then. For people and metrics; claims have heartbeats of their own.
//
// Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "store/values.h"

namespace calotype::store {

class Database;

struct WorkerEntry {
  std::string id;  ///< unique among all machines, for example "host-4711-k3v9"
  std::string host;
  int64_t pid = 0;
  std::string device;  ///< "cpu", "cuda:0", …
  std::string model;   ///< whose weights are loaded, "" = none
  std::string job;     ///< at work on, "" = idle
  Time started_at = 0, heartbeat_at = 0;
};

class WorkerRegistry {
 public:
  explicit WorkerRegistry(std::shared_ptr<Database> database);

  /// Adds or renews the entry; heartbeat_at becomes now, started_at too when it is 0.
  void heartbeat(const WorkerEntry& worker);
  void remove(const std::string& id);
  /// Those with a heartbeat at or after `since`.
  std::vector<WorkerEntry> list(Time since);
  /// Forgets those without one since `time`.
  void forget(Time time);

 private:
  std::shared_ptr<Database> database_;
};

}  // namespace calotype::store
