// Training runs for tests: small data, short commands, and the program as a process that can be interrupted.
#pragma once

#include <ATen/ATen.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <thread>
#include <utility>

#include "base/atomic_file.h"
#include "files/archives.h"
#include "image/image_codec.h"
#include "support/golden.h"
#include "weights/tensor_writer.h"

namespace calotype::cli {

namespace fs = std::filesystem;
using files::ZipPart;
using nlohmann::json;
using test::golden_path;
using test::ProgramResult;
using test::run_calotype;
using test::TemporaryFolder;
using Words = std::vector<std::string>;
using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

inline std::string model(const std::string& name = "m1_dev") { return golden_path("models/" + name).string(); }

/// A red disc on white, elsewhere in each picture; every other one is wider than high.
inline std::string picture(int number) {
  image::RgbImage out{.width = number % 2 ? 40 : 32, .height = 32};
  const int cx = 8 + number % 4 * 5, cy = 8 + number / 4 * 5;
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x) {
      const bool inside = (x - cx) * (x - cx) + (y - cy) * (y - cy) < 36;
      out.pixels.insert(out.pixels.end(), {uint8_t(inside ? 220 : 235), uint8_t(inside ? 40 : 235), uint8_t(40 + y)});
    }
  return image::encode(out, {.format = image::Format::png});
}

inline std::vector<ZipPart> picture_parts(int count) {
  std::vector<ZipPart> parts;
  for (int i = 0; i < count; ++i) {
    parts.push_back({.name = fmt::format("p{:02}.png", i), .content = picture(i)});
    parts.push_back({.name = fmt::format("p{:02}.txt", i), .content = fmt::format("a disc, number {}", i)});
  }
  return parts;
}

inline fs::path zip(const TemporaryFolder& folder, const std::vector<ZipPart>& parts,
                    const std::string& name = "data.zip") {
  base::write_file(folder / name, files::zip_of(parts));
  return folder / name;
}

/// Small enough for a step in a few hundredths of a second; of options given twice the later counts.
inline Words command(const fs::path& data, const fs::path& output, const Words& more = {}) {
  Words all = {"train", data.string(), "--model", model(), "--resolution",  "32",      "--max-sequence-length",
               "16",    "--threads",   "1",       "-o",    output.string(), "--batch", "2"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

inline fs::path work(const fs::path& output) { return output.string() + ".train"; }

inline fs::path checkpoint(const fs::path& output, int step) {
  return work(output) / "checkpoints" / fmt::format("checkpoint-{:09}.safetensors", step);
}

inline std::string bytes_of(const fs::path& path) { return base::read_file(path, 1 << 26); }

inline void expect_words(const std::string& text, const Words& words) {
  for (const std::string& word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " not in: " << text;
}

inline Words names_below(const fs::path& folder) {
  Words names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) names.push_back(entry.path().string());
  std::ranges::sort(names);
  return names;
}

/// The same numbers, bit by bit, and the same metadata.
inline void expect_same_adapter(const fs::path& got, const fs::path& want) {
  const auto a = weights::read_tensors(got), b = weights::read_tensors(want);
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : b) EXPECT_TRUE(a.contains(name) && at::equal(a.at(name), tensor)) << name;
  EXPECT_TRUE(bytes_of(got) == bytes_of(want)) << got << " has other metadata than " << want;
}

inline std::vector<json> json_lines(const std::string& text) {
  std::vector<json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

inline bool wait_until(const std::function<bool()>& happened, double seconds = 60) {
  const auto start = Clock::now();
  while (!happened() && seconds_since(start) < seconds) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return happened();
}

/// The program at work; it is killed with the object.
class Running {
 public:
  Running(const Words& arguments, fs::path errors) : errors_(std::move(errors)) {
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::signal(SIGINT, SIG_DFL);  // a runner may have it ignored
    ::dup2(::open(errors_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
    ::dup2(STDERR_FILENO, STDOUT_FILENO);
    std::vector<char*> argv = {const_cast<char*>(CALOTYPE_BINARY)};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(CALOTYPE_BINARY, argv.data());
    ::_exit(127);
  }
  ~Running() {
    if (pid_ <= 0) return;
    send(SIGKILL);
    wait();
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  void send(int signal) const { ::kill(pid_, signal); }
  /// Exit status, or 128 and the signal that ended it.
  int wait() {
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string errors() const { return fs::exists(errors_) ? bytes_of(errors_) : ""; }

 private:
  fs::path errors_;
  pid_t pid_ = -1;
};

inline int log_lines(const fs::path& output) {
  std::ifstream in(work(output) / "log.jsonl");
  int count = 0;
  for (std::string line; std::getline(in, line);) ++count;
  return count;
}

}  // namespace calotype::cli
