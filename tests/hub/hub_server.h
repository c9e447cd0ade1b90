// The stand-in hub (tests/support/hub_server.py) as a child process for the lifetime of an object.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "hub/http_client.h"

namespace calotype::test {

class HubServer {
 public:
  HubServer() {
    int to[2], from[2];
    base::check(::pipe(to) == 0 && ::pipe(from) == 0, base::ErrorKind::internal, "no pipes");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(to[0], 0);
      ::dup2(from[1], 1);
      for (int descriptor : {to[0], to[1], from[0], from[1]}) ::close(descriptor);
      ::execlp("python3", "python3", CALOTYPE_SOURCE_DIR "/tests/support/hub_server.py", nullptr);
      ::_exit(127);
    }
    ::close(to[0]);
    ::close(from[1]);
    stdin_ = to[1];
    FILE* lines = ::fdopen(from[0], "r");
    const int read = std::fscanf(lines, "%d %d", &port_, &cdn_port_);
    std::fclose(lines);
    base::check(read == 2, base::ErrorKind::internal, "tests/support/hub_server.py does not start; it needs python3");
  }
  ~HubServer() {
    ::close(stdin_);  // the server ends when its input does
    ::waitpid(pid_, nullptr, 0);
  }
  HubServer(const HubServer&) = delete;
  HubServer& operator=(const HubServer&) = delete;

  int port() const { return port_; }
  int cdn_port() const { return cdn_port_; }
  std::string url(const std::string& path = "") const { return fmt::format("http://127.0.0.1:{}{}", port_, path); }
  std::string cdn_url(const std::string& path) const { return fmt::format("http://127.0.0.1:{}{}", cdn_port_, path); }

  void control(const nlohmann::json& faults) const {
    const auto answer = hub::send({.method = "POST", .url = url("/_control"), .body = faults.dump()});
    EXPECT_EQ(answer.status, 200);
  }
  /// Requests whose path contains `part`, oldest first.
  std::vector<nlohmann::json> log(const std::string& part) const {
    std::vector<nlohmann::json> found;
    for (const auto& entry : nlohmann::json::parse(hub::send({.url = url("/_log")}).body))
      if (entry["path"].get<std::string>().find(part) != std::string::npos) found.push_back(entry);
    return found;
  }

 private:
  pid_t pid_ = -1;
  int stdin_ = -1, port_ = 0, cdn_port_ = 0;
};

}  // namespace calotype::test
