#include "server/supervisor.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

namespace calotype::server {
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto kInterval = 100ms;
constexpr auto kStable = 60s;  // who lived so long is started again at once

/// How a process ended, in words.
std::string ending(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was ended by signal {}", WTERMSIG(status));
  return fmt::format("ended with exit code {}", WEXITSTATUS(status));
}

}  // namespace

Supervisor::Supervisor(std::vector<std::vector<std::string>> arguments, Note note) : note_(std::move(note)) {
  for (auto& each : arguments) workers_.push_back({.arguments = std::move(each)});
  thread_ = std::thread([this] { run(); });
}

Supervisor::~Supervisor() {
  stopping_ = true;
  thread_.join();
}

/// Between fork and exec only calls that are safe in the child of a program with threads.
void Supervisor::start(Worker& worker) {
  std::vector<char*> arguments = {const_cast<char*>("calotype")};
  for (std::string& each : worker.arguments) arguments.push_back(each.data());
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    ::setpgid(0, 0);  // Ctrl-C in the terminal is the server's business
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::close_range(3, ~0U, 0);  // sockets of clients must not outlive the server in a worker
    ::execv("/proc/self/exe", arguments.data());
    ::_exit(127);
  }
  worker.started = Clock::now();
  worker.process = child;
  if (child < 0) {
    note_("cannot start a worker: no more processes; trying again");
    worker.next_start = Clock::now() + 5s;
  }
}

void Supervisor::look_after(Worker& worker) {
  if (worker.process < 0) {
    if (Clock::now() >= worker.next_start) start(worker);
    return;
  }
  int status = 0;
  if (::waitpid(worker.process, &status, WNOHANG) != worker.process) return;
  const auto lived = Clock::now() - worker.started;
  worker.failures = lived > kStable ? 0 : worker.failures + 1;
  const auto pause =
      std::chrono::milliseconds(worker.failures == 0 ? 0 : std::min(500 << std::min(worker.failures, 7), 30'000));
  note_(fmt::format("worker {} {}; starting it again in {:.1f} s", worker.process, ending(status),
                    static_cast<double>(pause.count()) / 1000));
  worker.process = -1;
  worker.next_start = Clock::now() + pause;
}

void Supervisor::run() {
  while (!stopping_) {
    for (Worker& worker : workers_) look_after(worker);
    std::this_thread::sleep_for(kInterval);
  }
  end_all();
}

void Supervisor::end_all() {
  for (const Worker& worker : workers_)
    if (worker.process > 0) ::kill(worker.process, SIGTERM);
  const auto end = Clock::now() + kPatience;
  for (Worker& worker : workers_) {
    while (worker.process > 0) {
      if (::waitpid(worker.process, nullptr, WNOHANG) == worker.process) {
        worker.process = -1;
      } else if (Clock::now() > end) {
        ::kill(worker.process, SIGKILL);
        ::waitpid(worker.process, nullptr, 0);
        worker.process = -1;
      } else {
        std::this_thread::sleep_for(20ms);
      }
    }
  }
}

}  // namespace calotype::server
