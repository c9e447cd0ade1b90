#include "worker/safety.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "base/error.h"
#include "hub/http_client.h"

namespace calotype::worker {
namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

constexpr const char* kUnexplained = "The safety check refused the picture. Try a different prompt.";
constexpr size_t kLongestReason = 500;

/// A file that only this user can read, gone with the object.
class TemporaryPicture {
 public:
  explicit TemporaryPicture(std::string_view bytes) {
    path_ = (fs::temp_directory_path() / "calotype-XXXXXX").string();
    const int descriptor = ::mkstemp(path_.data());
    base::check(descriptor >= 0, ErrorKind::internal, "{}: cannot be made for the safety check", path_);
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t count = ::write(descriptor, bytes.data() + done, bytes.size() - done);
      if (count <= 0) break;
      done += static_cast<size_t>(count);
    }
    ::close(descriptor);
    if (done == bytes.size()) return;
    ::unlink(path_.c_str());
    base::fail(ErrorKind::disk_full, "{}: cannot be written for the safety check", path_);
  }
  ~TemporaryPicture() { ::unlink(path_.c_str()); }
  TemporaryPicture(const TemporaryPicture&) = delete;
  TemporaryPicture& operator=(const TemporaryPicture&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// The environment of the child, made before fork(): between fork and exec nothing may allocate.
std::vector<std::string> environment_with(const std::string& prompt) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry; ++entry)
    if (!std::string_view(*entry).starts_with("CALOTYPE_PROMPT=")) all.push_back(*entry);
  all.push_back("CALOTYPE_PROMPT=" + prompt.substr(0, 100'000));
  return all;
}

struct Ending {
  int status = 0;
  std::string output;
};

/// Reads until the child closes its output or time is up; then the child and all it started are ended.
Ending wait_for(pid_t child, int from, Clock::time_point end) {
  Ending ending;
  char block[4096];
  for (bool open = true; open;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd waiting{.fd = from, .events = POLLIN, .revents = 0};
    if (left <= 0 || ::poll(&waiting, 1, static_cast<int>(left)) == 0) break;
    const ssize_t count = ::read(from, block, sizeof block);
    open = count > 0;
    if (open && ending.output.size() < 4 * kLongestReason) ending.output.append(block, static_cast<size_t>(count));
  }
  while (::waitpid(child, &ending.status, WNOHANG) == 0) {
    if (Clock::now() > end) {
      ::kill(-child, SIGKILL);
      ::waitpid(child, &ending.status, 0);
      base::fail(ErrorKind::internal, "the safety check's command took too long; nothing was stored");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return ending;
}

Ending run(const std::string& command, const std::string& argument, const std::string& prompt, Clock::time_point end) {
  int pipe[2];
  base::check(::pipe2(pipe, O_CLOEXEC) == 0, ErrorKind::internal, "the safety check's command cannot be started");
  std::vector<std::string> environment = environment_with(prompt);
  std::vector<char*> pointers;
  for (std::string& entry : environment) pointers.push_back(entry.data());
  pointers.push_back(nullptr);
  const std::string script = command + " \"$1\"";
  const char* arguments[] = {"/bin/sh", "-c", script.c_str(), "safety", argument.c_str(), nullptr};
  const pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);
    const int nothing = ::open("/dev/null", O_RDONLY);
    ::dup2(nothing, 0);
    ::dup2(pipe[1], 1);
    ::execve("/bin/sh", const_cast<char**>(arguments), pointers.data());
    ::_exit(127);
  }
  ::close(pipe[1]);
  if (child < 0) ::close(pipe[0]);
  base::check(child > 0, ErrorKind::internal, "the safety check's command cannot be started");
  ::setpgid(child, child);
  try {
    Ending ending = wait_for(child, pipe[0], end);
    ::close(pipe[0]);
    return ending;
  } catch (...) {
    ::close(pipe[0]);
    throw;
  }
}

std::string reason_of(const std::string& output) {
  const std::string line = output.substr(0, output.find('\n'));
  return line.empty() ? kUnexplained : base::printable(line, kLongestReason);
}

std::optional<std::string> ask_command(const SafetyOptions& options, std::string_view picture,
                                       const std::string& prompt) {
  const TemporaryPicture file(picture);
  const Ending ending = run(options.command, file.path(), prompt, Clock::now() + options.timeout);
  if (WIFEXITED(ending.status) && WEXITSTATUS(ending.status) == 0) return std::nullopt;
  const bool missing =
      !WIFEXITED(ending.status) || WEXITSTATUS(ending.status) == 127 || WEXITSTATUS(ending.status) == 126;
  base::check(!missing, ErrorKind::internal, "the safety check's command cannot be run; nothing was stored");
  return reason_of(ending.output);
}

std::optional<std::string> ask_url(const SafetyOptions& options, std::string_view picture,
                                   std::string_view content_type) {
  // The operator named this address; the guard is for those of users.
  const hub::HttpResponse answer = hub::send({.method = "POST",
                                              .url = options.url,
                                              .headers = {{"Content-Type", std::string(content_type)}},
                                              .body = std::string(picture),
                                              .timeout = options.timeout,
                                              .max_bytes = 1 << 20});
  const json verdict = json::parse(answer.body, nullptr, false);
  base::check(
      answer.status == 200 && verdict.is_object() && verdict.contains("allowed") && verdict["allowed"].is_boolean(),
      ErrorKind::internal, "the safety check answered with status {} and no verdict; nothing was stored",
      answer.status);
  if (verdict["allowed"].get<bool>()) return std::nullopt;
  const json reason = verdict.value("reason", json());
  return reason_of(reason.is_string() ? reason.get<std::string>() : "");
}

}  // namespace

std::optional<std::string> refusal(const SafetyOptions& options, std::string_view picture,
                                   std::string_view content_type, const std::string& prompt) {
  if (!options.command.empty())
    if (auto reason = ask_command(options, picture, prompt)) return reason;
  if (!options.url.empty()) return ask_url(options, picture, content_type);
  return std::nullopt;
}

}  // namespace calotype::worker
