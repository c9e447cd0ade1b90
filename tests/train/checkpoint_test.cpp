#include <ATen/ATen.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "support/golden.h"
#include "train/train_checkpoint.h"

namespace calotype::train {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

Checkpoint checkpoint(int64_t step) {
  const at::Tensor numbers = at::arange(3000).add(step);
  return {.step = step,
          .tensors = {{"layer.weight", numbers.to(at::kFloat).div(7).reshape({30, 100})},
                      {"layer.codes", numbers.to(at::kByte)},
                      {"layer.step", at::scalar_tensor(step, at::kLong)}},
          .state = {{"seed", 18446744073709551615U}, {"loss", 0.1}, {"prompt", "a 漢 \"word\""}}};
}

void expect_equal(const std::optional<Checkpoint>& got, const Checkpoint& want) {
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->step, want.step);
  EXPECT_EQ(got->state, want.state);
  ASSERT_EQ(got->tensors.size(), want.tensors.size());
  for (const auto& [name, tensor] : want.tensors) EXPECT_TRUE(at::equal(got->tensors.at(name), tensor)) << name;
}

struct Notes {
  std::vector<std::string> all;
  Note take() {
    return [this](std::string_view note) { all.emplace_back(note); };
  }
};

std::set<std::string> names(const fs::path& folder) {
  std::set<std::string> out;
  for (const auto& entry : fs::directory_iterator(folder)) out.insert(entry.path().filename().string());
  return out;
}

TEST(CheckpointFolder, BringsBackTheNewestAndKeepsTwo) {
  const test::TemporaryFolder temporary;
  CheckpointFolder folder(temporary / "run" / "checkpoints");
  Notes notes;
  EXPECT_FALSE(folder.load(notes.take())) << "no folder yet";
  for (const int64_t step : {250, 500, 750}) folder.save(checkpoint(step), nullptr, notes.take());
  expect_equal(folder.load(notes.take()), checkpoint(750));
  EXPECT_EQ(names(temporary / "run" / "checkpoints"),
            (std::set<std::string>{"checkpoint-000000500.safetensors", "checkpoint-000000750.safetensors"}));
  EXPECT_TRUE(notes.all.empty()) << notes.all.front();
}

// A safetensors reader that knows nothing of checkpoints finds the tensors; one changed byte anywhere in the file, or a
// cut at any place, must not be taken for a checkpoint.
TEST(CheckpointFolder, SkipsEveryKindOfDamage) {
  const test::TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path());
  Notes notes;
  folder.save(checkpoint(1), nullptr, notes.take());
  folder.save(checkpoint(2), nullptr, notes.take());
  const fs::path newest = folder.path(2);
  const std::string whole = base::read_file(newest, 1 << 20);
  const auto expect_skipped = [&](const std::string& bytes, const std::string& what) {
    std::ofstream(newest, std::ios::binary | std::ios::trunc) << bytes;
    notes.all.clear();
    expect_equal(folder.load(notes.take()), checkpoint(1));
    ASSERT_EQ(notes.all.size(), 1u) << what;
    EXPECT_NE(notes.all[0].find("checkpoint-000000002.safetensors"), std::string::npos) << notes.all[0];
  };
  for (size_t at = 0; at < whole.size(); at = at < 700 ? at + 1 : at + 97) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    expect_skipped(changed, "byte " + std::to_string(at));
  }
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, whole.size() / 2, whole.size() - 1})
    expect_skipped(whole.substr(0, size), "cut to " + std::to_string(size));
  expect_skipped(std::string(whole.size(), '\0'), "zeros, as some file systems leave after a power failure");
  expect_skipped(whole + "x", "a byte too many");
  expect_skipped(base::read_file(test::golden_path("noise.safetensors"), 1 << 20), "another program's file");

  std::ofstream(newest, std::ios::binary | std::ios::trunc) << whole;
  expect_equal(folder.load(notes.take()), checkpoint(2));
}

TEST(CheckpointFolder, GoesOnFromAnEarlierStep) {
  const test::TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path());
  Notes notes;
  for (const int64_t step : {100, 200}) folder.save(checkpoint(step), nullptr, notes.take());
  folder.save(checkpoint(150), nullptr, notes.take());  // 200 was damaged, or the user wanted so
  ASSERT_EQ(notes.all.size(), 1u);
  EXPECT_NE(notes.all[0].find("checkpoint-000000200.safetensors"), std::string::npos) << notes.all[0];
  expect_equal(folder.load(notes.take()), checkpoint(150));
  EXPECT_EQ(names(temporary.path()),
            (std::set<std::string>{"checkpoint-000000100.safetensors", "checkpoint-000000150.safetensors",
                                   "checkpoint-000000200.safetensors.superseded"}));
}

TEST(CheckpointFolder, ClearsAwayWhatAKilledProcessLeftAndNothingElse) {
  const test::TemporaryFolder temporary;
  const pid_t child = ::fork();
  if (child == 0) {
    base::AtomicFile file(temporary / "checkpoint-000000007.safetensors");
    file.write("half a checkpoint");
    ::_exit(0);  // as a kill: no destructor runs
  }
  ::waitpid(child, nullptr, 0);
  ASSERT_EQ(names(temporary.path()).size(), 1u);
  const std::set<std::string> kept = {"checkpoint-7.safetensors", "checkpoint-000000007.safetensors.backup",
                                      "adapter.safetensors", "notes.123456"};
  for (const std::string& name : kept) base::write_file(temporary / name, "mine");

  CheckpointFolder folder(temporary.path());
  Notes notes;
  EXPECT_FALSE(folder.load(notes.take()));
  folder.save(checkpoint(8), nullptr, notes.take());
  std::set<std::string> want = kept;
  want.insert("checkpoint-000000008.safetensors");
  EXPECT_EQ(names(temporary.path()), want);
}

// /dev/full refuses every write with ENOSPC; in the first two attempts it takes the place of the temporary file.
TEST(DiskFull, IsWaitedFor) {
  const test::TemporaryFolder temporary;
  int attempts = 0;
  const auto write = [&] {
    const int descriptor = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::close(descriptor);  // the next one to be handed out
    base::AtomicFile file(temporary / "a");
    if (++attempts <= 2) {
      const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
      ASSERT_EQ(::dup2(full, descriptor), descriptor);
      ::close(full);
    }
    file.write("whole");
    file.commit();
  };
  Notes notes;
  const auto begin = std::chrono::steady_clock::now();
  write_when_there_is_space(write, nullptr, notes.take(), 20ms);
  EXPECT_EQ(attempts, 3);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 60ms) << "the second wait is twice the first";
  ASSERT_EQ(notes.all.size(), 2u);
  EXPECT_NE(notes.all[0].find("No space left"), std::string::npos) << notes.all[0];
  EXPECT_EQ(base::read_file(temporary / "a", 100), "whole");
}

TEST(DiskFull, EndsWithTheErrorOnceCanceledAndOthersAtOnce) {
  base::CancelToken cancel;
  int attempts = 0;
  const auto full = [&] {
    ++attempts;
    base::fail(base::ErrorKind::disk_full, "no space");
  };
  const auto cancel_it = [&](std::string_view) { cancel.request(); };
  EXPECT_THROW(write_when_there_is_space(full, &cancel, cancel_it, 1h), base::Error);
  EXPECT_EQ(attempts, 2) << "once more after the request";
  const auto other = [] { base::fail(base::ErrorKind::not_found, "no folder"); };
  EXPECT_THROW(write_when_there_is_space(other, nullptr, cancel_it, 1h), base::Error);
}

/// A file system of 1 MiB for this process alone. False where the system does not let us.
bool mount_small_disk(const fs::path& folder) {
  const std::string map = "0 " + std::to_string(::getuid()) + " 1";
  const bool root = ::getuid() == 0 && ::unshare(CLONE_NEWNS) == 0;
  if (!root) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    std::ofstream("/proc/self/uid_map") << map;
  }
  return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("calotype", folder.c_str(), "tmpfs", 0, "size=1m") == 0;
}

/// What the child of the next test does; an empty text is success.
std::string save_on_a_full_disk(const fs::path& disk) {
  CheckpointFolder folder(disk / "checkpoints", 1ms);
  Checkpoint big = checkpoint(2);
  big.tensors["big"] = at::ones({120'000});  // 480 kB
  int waits = 0;
  const Note free_space = [&](std::string_view) {
    if (++waits == 2) fs::remove(disk / "ballast");
  };
  folder.save(checkpoint(1), nullptr, free_space);
  base::write_file(disk / "ballast", std::string(700'000, 'x'));
  folder.save(big, nullptr, free_space);
  if (waits != 2) return "waited " + std::to_string(waits) + " times, expected 2";
  const auto saved = folder.load(free_space);
  if (!saved || saved->step != 2 || !at::equal(saved->tensors.at("big"), big.tensors.at("big"))) return "not saved";

  base::CancelToken cancel;
  big.step = 3;
  base::write_file(disk / "ballast", std::string(400'000, 'x'));
  try {
    folder.save(big, &cancel, [&](std::string_view) { cancel.request(); });
    return "saved without space";
  } catch (const base::Error& error) {
    if (error.kind() != base::ErrorKind::disk_full) return error.what();
  }
  if (names(disk / "checkpoints").size() != 2) return "leaves a temporary file";
  return folder.load(free_space)->step == 2 ? "" : "the earlier checkpoint is gone";
}

constexpr int kCannotMount = 77;

[[noreturn]] void save_in_a_child() {
  std::string failure;
  {
    const test::TemporaryFolder temporary;
    if (!mount_small_disk(temporary.path())) std::exit(kCannotMount);
    try {
      failure = save_on_a_full_disk(temporary.path());
    } catch (const std::exception& error) {
      failure = error.what();
    }
    ::umount2(temporary.path().c_str(), MNT_DETACH);
  }
  std::fprintf(stderr, "%s\n", failure.c_str());
  std::exit(failure.empty() ? 0 : 1);
}

// The whole way, on a real file system that is full; in a process of its own, because the mount stays with it.
TEST(DiskFull, CheckpointsAreSavedWhenSpaceReturns) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  int code = -1;
  const auto ended_well = [&](int status) {
    code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return code == 0 || code == kCannotMount;
  };
  EXPECT_EXIT(save_in_a_child(), ended_well, "");
  if (code == kCannotMount) GTEST_SKIP() << "file systems cannot be mounted here";
}

}  // namespace
}  // namespace calotype::train
