#include "support/stores.h"

#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <thread>
#include <vector>

namespace calotype::test {
namespace fs = std::filesystem;
namespace {

/// Where initdb and postgres lie: Debian keeps versions side by side.
fs::path postgres_binaries() {
  std::vector<fs::path> found;
  std::error_code none;
  for (const auto& version : fs::directory_iterator("/usr/lib/postgresql", none))
    if (fs::exists(version.path() / "bin/initdb")) found.push_back(version.path() / "bin");
  return found.empty() ? fs::path() : *std::ranges::max_element(found);
}

/// PostgreSQL refuses to run as root: then Debian's user "postgres" runs it.
bool become_ordinary_user() {
  if (::getuid() != 0) return true;
  const passwd* user = ::getpwnam("postgres");
  return user && ::initgroups("postgres", user->pw_gid) == 0 && ::setgid(user->pw_gid) == 0 &&
         ::setuid(user->pw_uid) == 0;
}

pid_t start(const std::vector<std::string>& command, const fs::path& output) {
  const pid_t process = ::fork();
  if (process != 0) return process;
  std::vector<char*> arguments;
  for (const std::string& part : command) arguments.push_back(const_cast<char*>(part.c_str()));
  arguments.push_back(nullptr);
  const bool ready = become_ordinary_user() && std::freopen(output.c_str(), "a", stdout) &&
                     ::dup2(::fileno(stdout), 2) >= 0 && ::chdir("/") == 0 &&
                     ::prctl(PR_SET_PDEATHSIG, SIGQUIT) == 0;  // tests that are killed leave no server behind
  if (ready) ::execv(arguments[0], arguments.data());
  ::_exit(127);
}

bool run(const std::vector<std::string>& command, const fs::path& output) { return ended_well(start(command, output)); }

/// A private server on a socket in a temporary folder; nothing listens on the network.
class PostgresServer {
 public:
  explicit PostgresServer(const fs::path& binaries) : binaries_(binaries) {
    char name[] = "/tmp/calotype-pg-XXXXXX";
    folder_ = ::mkdtemp(name);
    if (const passwd* user = ::getuid() == 0 ? ::getpwnam("postgres") : nullptr)
      if (::chown(folder_.c_str(), user->pw_uid, user->pw_gid) != 0) return;
    const fs::path data = folder_ / "data";
    if (!run({binaries / "initdb", "-D", data, "-A", "trust", "-U", "calotype", "-E", "UTF8", "--locale=C.UTF-8",
              "--no-sync"},
             folder_ / "log"))
      return;
    server_ = start({binaries / "postgres", "-D", data, "-k", folder_, "-c", "listen_addresses=", "-c", "fsync=off",
                     "-c", "max_connections=300"},
                    folder_ / "server.log");
    for (int i = 0; i < 300 && !ready_; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      ready_ = run({binaries_ / "pg_isready", "-q", "-h", folder_}, folder_ / "log");
    }
  }
  ~PostgresServer() {
    if (::getpid() != owner_) return;
    if (server_ > 0) {
      ::kill(server_, SIGQUIT);
      ::waitpid(server_, nullptr, 0);
    }
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  std::string new_database() {
    const std::string name = "test" + std::to_string(++databases_);
    if (!ready_ || !run({binaries_ / "createdb", "-h", folder_, "-U", "calotype", name}, folder_ / "log")) return "";
    return "postgresql://calotype@/" + name + "?host=" + folder_.string();
  }

 private:
  fs::path binaries_, folder_;
  pid_t owner_ = ::getpid(), server_ = -1;
  bool ready_ = false;
  int databases_ = 0;
};

}  // namespace

std::string new_postgres_database() {
  static const fs::path binaries = postgres_binaries();
  static const std::unique_ptr<PostgresServer> server =
      binaries.empty() ? nullptr : std::make_unique<PostgresServer>(binaries);
  return server ? server->new_database() : "";
}

void OnEveryDatabase::SetUp() {
  options_.data = folder_.path() / "data";
  options_.file_options.keep_free = 0;
  if (GetParam() == "sqlite") return;
  options_.database = new_postgres_database();
  if (!options_.database.empty()) return;
  if (std::getenv("CALOTYPE_REQUIRE_POSTGRES")) FAIL() << "no PostgreSQL: install the Debian package postgresql";
  GTEST_SKIP() << "no PostgreSQL: install the Debian package postgresql";
}

pid_t in_new_process(const std::function<void()>& work) {
  const pid_t process = ::fork();
  if (process != 0) return process;
  try {
    work();
  } catch (const std::exception& e) {
    std::cerr << "process " << ::getpid() << ": " << e.what() << std::endl;
    ::_exit(1);
  }
  ::_exit(0);
}

bool ended_well(pid_t process) {
  int status = 0;
  return ::waitpid(process, &status, 0) == process && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::optional<base::ErrorKind> error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const base::Error& e) {
    return e.kind();
  }
  return {};
}

}  // namespace calotype::test
