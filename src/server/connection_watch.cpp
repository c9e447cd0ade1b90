#include "server/connection_watch.h"

#include <sys/socket.h>

namespace calotype::server {
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kInterval{250};

int64_t now_ms() {
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

ConnectionWatch::ConnectionWatch() : thread_([this] { run(); }) {}

ConnectionWatch::~ConnectionWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_signal_.notify_all();
  thread_.join();
}

ConnectionWatch::Watched ConnectionWatch::add(int socket) {
  const std::lock_guard lock(mutex_);
  entries_.emplace_front().socket = socket;
  return Watched(*this, entries_.begin());
}

ConnectionWatch::Watched::~Watched() {
  const std::lock_guard lock(watch_.mutex_);
  watch_.entries_.erase(entry_);
}

void ConnectionWatch::Watched::allow(milliseconds time) {
  entry_->deadline_ms.store(now_ms() + time.count(), std::memory_order_relaxed);
}

void ConnectionWatch::Watched::unlimited() { entry_->deadline_ms.store(INT64_MAX, std::memory_order_relaxed); }

size_t ConnectionWatch::open() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

void ConnectionWatch::shut_down_all() {
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) ::shutdown(entry.socket, SHUT_RDWR);
}

void ConnectionWatch::run() {
  std::unique_lock lock(mutex_);
  while (!stop_signal_.wait_for(lock, kInterval, [this] { return stopping_; })) {
    const int64_t now = now_ms();
    for (Entry& entry : entries_) {
      if (entry.deadline_ms.load(std::memory_order_relaxed) > now) continue;
      // Not close(): the connection's thread still uses the number. It sees an end of file and cleans up.
      ::shutdown(entry.socket, SHUT_RDWR);
      entry.deadline_ms.store(INT64_MAX, std::memory_order_relaxed);
    }
  }
}

}  // namespace calotype::server
