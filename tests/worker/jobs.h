// Jobs for tests of the worker: a store in a temporary folder, tiny random models, pictures to learn from.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "base/atomic_file.h"
#include "files/archives.h"
#include "hub/signature.h"
#include "image/image_codec.h"
#include "store/file_reference.h"
#include "support/golden.h"
#include "worker/worker.h"

namespace calotype::worker {

namespace fs = std::filesystem;
using store::Job;
using store::JobKind;
using store::JobStatus;
using test::golden_path;
using test::TemporaryFolder;
using namespace std::chrono_literals;

constexpr const char* kSchnell = "black-forest-labs/flux-schnell";
constexpr const char* kDev = "black-forest-labs/flux-dev";
constexpr const char* kTrainer = "ostris/flux-dev-lora-trainer";

/// A red disc on white, elsewhere in each picture.
inline std::string disc(int number) {
  image::RgbImage out{.width = 80, .height = 64};
  const int cx = 16 + number % 4 * 12, cy = 16 + number / 4 * 10;
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x) {
      const bool inside = (x - cx) * (x - cx) + (y - cy) * (y - cy) < 144;
      out.pixels.insert(out.pixels.end(), {uint8_t(inside ? 220 : 235), uint8_t(inside ? 40 : 235), uint8_t(40 + y)});
    }
  return image::encode(out, {.format = image::Format::png});
}

inline std::string discs_zip(int count = 4) {
  std::vector<files::ZipPart> parts = {{.name = "__MACOSX/._p0.png", .content = "litter"}};
  for (int i = 0; i < count; ++i) {
    parts.push_back({.name = fmt::format("p{}.png", i), .content = disc(i)});
    if (i > 0) parts.push_back({.name = fmt::format("p{}.txt", i), .content = fmt::format("a disc,\nnumber {}\n", i)});
  }
  return files::zip_of(parts);
}

/// The built program as a process.
class Process {
 public:
  explicit Process(const std::vector<std::string>& arguments, const fs::path& output) {
    child_ = ::fork();
    if (child_ != 0) return;
    const int file = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(file, 1);
    ::dup2(file, 2);
    std::vector<char*> argv = {const_cast<char*>(CALOTYPE_BINARY)};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(CALOTYPE_BINARY, argv.data());
    ::_exit(127);
  }
  ~Process() {
    if (child_ > 0) end(SIGKILL);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// Exit status, or 128 + the signal that ended it.
  int end(int signal) {
    ::kill(child_, signal);
    int status = 0;
    ::waitpid(child_, &status, 0);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t child_ = -1;
};

class WorkerTest : public testing::Test {
 protected:
  static fs::path model() { return golden_path("models/m1_dev"); }

  WorkerOptions options() const {
    WorkerOptions out;
    out.models.weights["default"] = {.model = model()};
    out.models.first = "default";
    return out;
  }
  std::vector<std::string> worker_command() const {
    return {"worker", "--data", data().string(), "--model", model().string(), "--threads", "1", "--device", "cpu"};
  }
  fs::path data() const { return folder_ / "data"; }

  Job create(const std::string& name, const Json& input, const std::string& version = std::string(64, 'a')) {
    return store_.jobs->create({.kind = JobKind::prediction, .model = name, .version = version, .input = input});
  }
  Job create_training(const Json& more = Json::object(), const std::string& destination = "me/discs",
                      const std::map<std::string, std::string>& secrets = {}) {
    Json input = {{"steps", 3}, {"resolution", "512"}, {"lora_rank", 4}};
    if (!more.contains("input_images"))
      input["input_images"] = "http://elsewhere:1/v1/files/" + upload("discs.zip", discs_zip());
    input.update(more);
    return store_.jobs->create({.kind = JobKind::training,
                                .model = kTrainer,
                                .version = std::string(64, 'b'),
                                .input = input,
                                .secrets = secrets,
                                .destination = destination});
  }
  std::string upload(const std::string& name, const std::string& bytes) {
    return store_.files->put({.name = name}, bytes).id;
  }

  Job find(const Job& job) { return store_.jobs->find(job.id).value(); }
  /// Runs everything that is queued and gives the job's end.
  Job run(const Job& job, WorkerOptions with) {
    Worker worker(std::move(with), store_);
    const base::CancelToken never;
    while (worker.run_one(never)) {
    }
    return find(job);
  }
  Job run(const Job& job) { return run(job, options()); }

  /// False when it does not happen within a minute.
  static bool wait_until(const std::function<bool()>& happened) {
    const auto end = std::chrono::steady_clock::now() + 60s;
    while (!happened()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }

  std::string file_bytes(const Json& reference) {
    const std::string id = store::referenced_file(reference.get<std::string>()).value();
    return base::read_file(store_.files->local_path(id), 1 << 26);
  }
  image::RgbImage picture(const Json& reference) {
    const std::string bytes = file_bytes(reference);
    return image::decode(std::as_bytes(std::span(bytes)), "output");
  }

  TemporaryFolder folder_;
  store::Store store_ = store::Store::open({.data = folder_ / "data"});
};

}  // namespace calotype::worker
