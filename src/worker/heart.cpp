#include "worker/heart.h"

#include <algorithm>

namespace calotype::worker {
using namespace std::chrono_literals;

namespace {

constexpr auto kFlushEvery = 200ms;
constexpr int kBeatEvery = 5;        // flushes: a second
constexpr int kAnnounceEvery = 25;   // 5 s
constexpr int kReconcileEvery = 50;  // 10 s

}  // namespace

Heart::Heart(store::Store& store, store::WorkerEntry entry, const base::CancelToken& stop)
    : store_(store), stop_(stop), entry_(std::move(entry)), thread_([this] { run(); }) {}

Heart::~Heart() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  thread_.join();
  try {
    store_.workers->remove(entry_.id);
  } catch (const std::exception&) {  // its entry grows old instead
  }
}

Heart::Watch::Watch(Heart& heart, JobWriter& job) : heart_(heart), job_(job) {
  const std::lock_guard lock(heart_.mutex_);
  heart_.jobs_.push_back(&job_);
  heart_.entry_.job = job_.job().id;
}

Heart::Watch::~Watch() {
  const std::lock_guard lock(heart_.mutex_);
  std::erase(heart_.jobs_, &job_);
  heart_.entry_.job = heart_.jobs_.empty() ? "" : heart_.jobs_.back()->job().id;
}

void Heart::set_model(const std::string& model) {
  const std::lock_guard lock(mutex_);
  entry_.model = model;
}

void Heart::run() {
  std::unique_lock lock(mutex_);
  for (int64_t round = 0; !ending_; ++round) {
    if (stop_.requested())
      for (JobWriter* job : jobs_) job->stop(Stop::leaving);
    for (JobWriter* job : jobs_) job->flush();
    if (round % kBeatEvery == 0) beat();
    if (round % kAnnounceEvery == 0) announce();
    if (round % kReconcileEvery == 0) try {
        store_.jobs->reconcile(store::now());
      } catch (const std::exception&) {  // the next round, or another process, does it
      }
    wake_.wait_for(lock, kFlushEvery, [this] { return ending_; });
  }
}

void Heart::beat() {
  int64_t waiting = 0;
  for (JobWriter* job : jobs_) waiting = std::max(waiting, job->beat());
  waiting_ = waiting;
}

void Heart::announce() {
  try {
    store_.workers->heartbeat(entry_);
  } catch (const std::exception&) {  // the next one may get through
  }
}

}  // namespace calotype::worker
