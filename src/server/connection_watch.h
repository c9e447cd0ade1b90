// Deadlines of connections, kept by one thread: a client that sends a byte every ten seconds never runs into a socket's
// own timeout, and would hold its thread for ever.
//
//   ConnectionWatch watch;
//   auto watched = watch.add(socket);
//   watched.allow(15s);     // the request's header has to be here by then, else the connection is shut down
//   watched.unlimited();    // our turn
//
// Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>
#include <thread>

namespace calotype::server {

class ConnectionWatch {
  struct Entry {
    int socket = -1;
    std::atomic<int64_t> deadline_ms{INT64_MAX};
  };

 public:
  ConnectionWatch();
  ~ConnectionWatch();
  ConnectionWatch(const ConnectionWatch&) = delete;
  ConnectionWatch& operator=(const ConnectionWatch&) = delete;

  class Watched {
   public:
    Watched(ConnectionWatch& watch, std::list<Entry>::iterator entry) : watch_(watch), entry_(entry) {}
    /// Must go away before the socket is closed: its number is soon another connection's.
    ~Watched();
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;
    void allow(std::chrono::milliseconds time);
    void unlimited();

   private:
    ConnectionWatch& watch_;
    std::list<Entry>::iterator entry_;
  };

  Watched add(int socket);
  size_t open() const;
  /// Shuts every connection down; their threads notice at the next read or write.
  void shut_down_all();

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable stop_signal_;
  bool stopping_ = false;
  std::list<Entry> entries_;
  std::thread thread_;
};

}  // namespace calotype::server
