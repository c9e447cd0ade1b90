// Starts worker processes of this very program, and again when they end; takes them down with itself.
//
//   Supervisor workers({"worker", "--data", "data"}, 1, [](std::string_view note) { … });
//
// A worker that crashes takes nothing with it: its job goes back to the queue when its heartbeats stop. Workers end
// with this process, however it ends (PR_SET_PDEATHSIG).
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace calotype::server {

class Supervisor {
 public:
  /// Called on the supervisor's thread with one sentence per event.
  using Note = std::function<void(std::string_view)>;

  /// `arguments` of the program, per worker.
  Supervisor(std::vector<std::vector<std::string>> arguments, Note note);
  /// SIGTERM to all, SIGKILL after `kPatience`.
  ~Supervisor();

  static constexpr std::chrono::seconds kPatience{20};

 private:
  struct Worker {
    std::vector<std::string> arguments;
    pid_t process = -1;
    int failures = 0;  // in a row
    std::chrono::steady_clock::time_point started{}, next_start{};
  };
  void run();
  void start(Worker& worker);
  void look_after(Worker& worker);
  void end_all();

  std::vector<Worker> workers_;
  Note note_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace calotype::server
