// What happens to long runs: kills, damage, full disks, Ctrl-C, numbers that are not finite.
#include <sched.h>
#include <sys/mount.h>

#include <random>

#include "base/error.h"
#include "cli/train_runs.h"
#include "train/train_loop.h"

namespace calotype::cli {
namespace {

// Half of the kills fall anywhere into a run, half into its beginning, where prompts and pictures are encoded. A run
// that is done before its kill is compared as well, and begun anew.
TEST(TrainFaults, KilledTenTimesItEndsWithTheBitsOfAnUninterruptedRun) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(6)), whole = folder / "whole.safetensors",
                 killed = folder / "tok.safetensors";
  const Words options = {"--trigger",
                         "TOK",
                         "--steps",
                         "40",
                         "--accumulate",
                         "2",
                         "--flip",
                         "--ema",
                         "0.9",
                         "--caption-dropout",
                         "0.3",
                         "--optimizer",
                         "adamw8bit",
                         "--checkpoint-every",
                         "5",
                         "--sample-prompt",
                         "TOK",
                         "--sample-every",
                         "20"};
  const auto start = Clock::now();
  const ProgramResult reference = run_calotype(command(data, whole, options));
  ASSERT_EQ(reference.exit_code, 0) << reference.error;
  const double usual = seconds_since(start);
  const unsigned seed = std::random_device{}();
  std::cout << "random moments: seed " << seed << "\n";
  std::mt19937 random(seed);
  for (int kill = 0; kill < 10; ++kill) {
    const double latest = kill % 2 ? usual : usual / 3;
    const double moment = std::uniform_real_distribution<double>(0, latest)(random);
    Running run(command(data, killed, options), folder / "errors");
    std::this_thread::sleep_for(std::chrono::duration<double>(moment));
    run.send(SIGKILL);
    const int status = run.wait();
    ASSERT_TRUE(status == 128 + SIGKILL || status == 0) << status << " after " << moment << " s: " << run.errors();
    if (status != 0) continue;
    expect_same_adapter(killed, whole);
    fs::remove_all(work(killed));
  }
  const ProgramResult last = run_calotype(command(data, killed, options));
  ASSERT_EQ(last.exit_code, 0) << last.error;
  expect_same_adapter(killed, whole);
  for (const std::string& name : names_below(folder.path()))
    EXPECT_EQ(name.find(".partial-") + name.find("unpacking-"), 2 * std::string::npos) << name << " was left behind";
}

// A killed run's temporary files may be as large as the model. Others may belong to a run that is at work beside.
TEST(TrainFaults, OnlyItsOwnLeftoversAreRemoved) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(2)), full = folder / "full";
  const auto leave = [&](const std::string& name) {
    fs::create_directories(folder / name / "transformer");
    base::write_file(folder / name / "transformer" / "half", "");
  };
  const Words own = {"full.new.partial-abcdef", "full.best.new.partial-abcdef",
                     "full.train/prompts/000001.safetensors.partial-abcdef"},
              others = {"full.v2.new.partial-abcdef", "full.new.partial", "fuller.partial-abcdef"};
  for (const Words& names : {own, others}) std::ranges::for_each(names, leave);
  const ProgramResult run = run_calotype(command(data, full, {"--mode", "full", "--steps", "1"}));
  ASSERT_EQ(run.exit_code, 0) << run.error;
  for (const std::string& name : own) EXPECT_FALSE(fs::exists(folder / name)) << name;
  for (const std::string& name : others) EXPECT_TRUE(fs::exists(folder / name)) << name;
}

TEST(TrainFaults, DamagedCheckpointsGiveWayToOlderOnes) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(4)), tok = folder / "tok.safetensors";
  const Words options = {"--steps", "12", "--checkpoint-every", "4", "--optimizer", "prodigy"};
  ASSERT_EQ(run_calotype(command(data, tok, options)).exit_code, 0);
  const fs::path whole = folder / "whole.safetensors", newest = checkpoint(tok, 12), older = checkpoint(tok, 8);
  fs::copy_file(tok, whole);
  const auto flip_a_byte = [](const fs::path& file) {
    std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
    const auto middle = static_cast<std::streamoff>(fs::file_size(file) / 2);
    out.seekg(middle);
    const int byte = out.get();
    out.seekp(middle);
    out.put(static_cast<char>(byte ^ 1));
  };
  const std::pair<std::function<void()>, Words> damages[] = {
      {[&] { flip_a_byte(newest); }, {"checkpoint-000000012", "going on after step 8 of 12"}},
      {[&] { fs::resize_file(newest, fs::file_size(newest) / 2); }, {"checkpoint-000000012", "after step 8 of 12"}},
      {[&] { flip_a_byte(newest), fs::resize_file(older, 5); }, {"checkpoint-000000012", "checkpoint-000000008"}}};
  for (const auto& [damage, words] : damages) {
    damage();
    fs::remove(tok);
    const ProgramResult run = run_calotype(command(data, tok, options));
    ASSERT_EQ(run.exit_code, 0) << run.error;
    expect_words(run.error, words);
    expect_same_adapter(tok, whole);
  }
}

TEST(TrainFaults, CtrlCLeavesACheckpointFromWhichTheRunGoesOn) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(4)), tok = folder / "tok.safetensors",
                 whole = folder / "whole.safetensors";
  const Words options = {"--steps", "30", "--optimizer", "muon", "--schedule", "cosine", "--warmup", "5"};
  {
    Running run(command(data, tok, options), folder / "errors");
    ASSERT_TRUE(wait_until([&] { return fs::exists(work(tok) / "prompts"); }));  // loading, encoding
    run.send(SIGINT);
    EXPECT_EQ(run.wait(), 130) << run.errors();
  }
  {
    Running run(command(data, tok, options), folder / "errors");
    ASSERT_TRUE(wait_until([&] { return log_lines(tok) >= 3; })) << run.errors();
    run.send(SIGINT);
    ASSERT_EQ(run.wait(), 130) << run.errors();
    expect_words(run.errors(), {"of 30; the same command goes on from there"});
  }
  EXPECT_FALSE(fs::exists(tok));
  EXPECT_FALSE(fs::is_empty(work(tok) / "checkpoints"));
  const ProgramResult rest = run_calotype(command(data, tok, options));
  ASSERT_EQ(rest.exit_code, 0) << rest.error;
  expect_words(rest.error, {"going on after step"});
  ASSERT_EQ(run_calotype(command(data, whole, options)).exit_code, 0);
  expect_same_adapter(tok, whole);
}

TEST(TrainFaults, AFinishedRunEndsAtOnceWithTheSameFile) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(4)), tok = folder / "tok.safetensors";
  ASSERT_EQ(run_calotype(command(data, tok, {"--steps", "6"})).exit_code, 0);
  const std::string before = bytes_of(tok);
  fs::remove(tok);
  const ProgramResult again = run_calotype(command(data, tok, {"--steps", "6", "--json-log"}));
  ASSERT_EQ(again.exit_code, 0) << again.error;
  EXPECT_EQ(json_lines(again.out).size(), 1u) << "no step, only the result: " << again.out;
  EXPECT_TRUE(bytes_of(tok) == before);
  const ProgramResult longer = run_calotype(command(data, tok, {"--steps", "8", "--json-log"}));
  EXPECT_EQ(json_lines(longer.out).size(), 3u) << longer.out;
  expect_words(run_calotype(command(data, tok, {"--steps", "6"})).error, {"8 steps were done before", "--restart"});
}

TEST(TrainFaults, ARunWithOtherSettingsOrModelIsAConflict) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(4)), tok = folder / "tok.safetensors";
  ASSERT_EQ(run_calotype(command(data, tok, {"--steps", "2"})).exit_code, 0);
  const std::string before = bytes_of(tok);
  const std::pair<Words, Words> others[] = {
      {{"--rank", "4", "--lr", "0.01"}, {"rank 4 (was 16)", "lr 0.01 (was 0.0004)", "--restart"}},
      {{"--max-sequence-length", "8"}, {"max-sequence-length 8 (was 16)"}},
      {{"--model", model("m2_schnell")}, {"another model", "--restart"}}};
  for (const auto& [change, words] : others) {
    Words more = {"--steps", "2"};
    more.insert(more.end(), change.begin(), change.end());
    const ProgramResult run = run_calotype(command(data, tok, more));
    EXPECT_EQ(run.exit_code, 2) << run.error;
    expect_words(run.error, words);
    EXPECT_TRUE(bytes_of(tok) == before);
  }
  const ProgramResult anew = run_calotype(command(data, tok, {"--steps", "2", "--rank", "4", "--restart"}));
  EXPECT_EQ(anew.exit_code, 0) << anew.error;
  EXPECT_FALSE(bytes_of(tok) == before);
}

TEST(TrainFaults, TwoProcessesDoNotShareAWorkFolder) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(4)), tok = folder / "tok.safetensors";
  Running first(command(data, tok, {"--steps", "100000"}), folder / "errors");
  ASSERT_TRUE(wait_until([&] { return log_lines(tok) > 0; })) << first.errors();
  const ProgramResult second = run_calotype(command(data, tok, {"--steps", "100000", "--restart"}));
  EXPECT_EQ(second.exit_code, 2);
  expect_words(second.error, {"another process is training there"});
  EXPECT_TRUE(wait_until([&, lines = log_lines(tok)] { return log_lines(tok) > lines; })) << "the first one stopped";
}

// Weights grow ten-thousandfold a step until the forward overflows: beyond f16 by then, far from infinite themselves.
TEST(TrainFaults, TenStepsWithoutFiniteNumbersEndTheRun) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(4)), tok = folder / "tok.safetensors";
  const ProgramResult run = run_calotype(command(data, tok, {"--steps", "40", "--lr", "100", "--weight-decay", "100"}));
  EXPECT_EQ(run.exit_code, 1) << run.error;
  expect_words(run.error, {"10 steps in a row had no finite loss or gradient", "up to step", "Lower --lr (it is 100)",
                           "the step was skipped", tok.string()});
  for (const auto& [name, tensor] : weights::read_tensors(tok))
    EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
}

/// One number that decay multiplies by −9999 each step.
class Exploding : public train::TrainTask {
 public:
  const train::Parameters& parameters() const override { return parameters_; }
  at::Tensor loss(int64_t) override { return (value_ * 1e-38).sum(); }
  std::optional<double> validation_loss() override { return std::nullopt; }
  std::vector<train::Preview> previews() override { return {}; }
  void save(const fs::path& path, const json&) override { base::write_file(path, fmt::to_string(at())); }
  std::string identity() const override { return "one number"; }
  float at() const { return value_.item<float>(); }

 private:
  at::Tensor value_ = at::full({1}, 1e30f).set_requires_grad(true);
  train::Parameters parameters_ = {{.name = "x", .value = value_}};
};

// 1e30 → −1e34 → 1e38 → −∞ in the third update: the checkpoint of the second step is the last finite state.
TEST(TrainFaults, AnOverflowingUpdateIsTakenBackToTheLastFiniteCheckpoint) {
  for (const int every : {1, 0}) {
    const TemporaryFolder folder;
    Exploding task;
    const train::TrainOptions options{.output = folder / "x.safetensors",
                                      .steps = 100,
                                      .learning_rate = 100.0,
                                      .weight_decay = 100,
                                      .ema = 0,
                                      .checkpoint_every = every};
    fs::create_directories(work(options.output));
    train::TrainLoop loop(task, options, {});
    try {
      loop.run();
      FAIL() << "it ran to its end";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.kind(), base::ErrorKind::internal);
      expect_words(error.what(), {"step 13:", every ? "up to step 2" : "nothing was saved", "Lower --lr (it is 100)"});
    }
    EXPECT_EQ(fs::exists(options.output), every == 1);
    if (every) {
      EXPECT_NEAR(std::stof(bytes_of(options.output)) / 1e38f, 1, 1e-3);
    }
    EXPECT_FALSE(fs::exists(checkpoint(options.output, 3)));
  }
}

/// A file system of `size` for this process alone. False where the system does not let us.
bool mount_small_disk(const fs::path& folder, const std::string& size) {
  const std::string map = "0 " + std::to_string(::getuid()) + " 1";
  if (::getuid() != 0 || ::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    std::ofstream("/proc/self/uid_map") << map;
  }
  return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("calotype", folder.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
}

constexpr int kCannotMount = 77;

/// Trains on a disk without room for a checkpoint, and makes room when the program says that it waits.
int train_on_a_full_disk(const TemporaryFolder& folder, const fs::path& data) {
  const fs::path disk = folder / "disk", ballast = disk / "ballast";
  if (!mount_small_disk(disk, "4m")) return kCannotMount;
  base::write_file(ballast, std::string(3'800'000, 'x'));
  Running run(command(data, disk / "tok.safetensors", {"--steps", "4"}), folder / "errors");
  if (!wait_until([&] { return run.errors().find("waiting for space") != std::string::npos; })) return 1;
  fs::remove(ballast);
  const int status = run.wait();
  if (status == 0) fs::copy_file(disk / "tok.safetensors", folder / "tok.safetensors");
  return status;
}

TEST(TrainFaults, AFullDiskMakesTheRunWait) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(4)), whole = folder / "whole.safetensors";
  fs::create_directory(folder / "disk");
  const pid_t child = ::fork();
  if (child == 0) ::_exit(train_on_a_full_disk(folder, data));
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kCannotMount) GTEST_SKIP() << "no file system of our own can be mounted here";
  ASSERT_EQ(WEXITSTATUS(status), 0) << bytes_of(folder / "errors");
  ASSERT_EQ(run_calotype(command(data, whole, {"--steps", "4"})).exit_code, 0);
  expect_same_adapter(folder / "tok.safetensors", whole);
}

}  // namespace
}  // namespace calotype::cli
