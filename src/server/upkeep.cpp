#include "server/upkeep.h"

#include <algorithm>

namespace calotype::server {

namespace {

constexpr store::Time kWeek = 7 * 24 * 3600 * store::kSecond;

void tidy(Site& site, store::Time now) {
  site.store.files->expire(now);
  site.store.webhooks->forget(now - kWeek);
  site.store.workers->forget(now - 3600 * store::kSecond);
  const store::Time kept = site.options.prediction_retention.count() * store::kSecond;
  if (kept > 0) site.store.jobs->forget(store::JobKind::prediction, now - kept);
}

}  // namespace

Upkeep::Upkeep(Site& site) : site_(site), thread_([this] { run(); }) {}

Upkeep::~Upkeep() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_signal_.notify_all();
  thread_.join();
}

void Upkeep::run() {
  std::unique_lock lock(mutex_);
  for (int64_t round = 0; !stopping_; ++round) {
    lock.unlock();
    try {
      site_.store.jobs->reconcile(store::now());
      if (round % 60 == 1) tidy(site_, store::now());
    } catch (const std::exception&) {
      // A database that is busy or away: the next round is soon.
    }
    lock.lock();
    // A deadline is kept to the second.
    stop_signal_.wait_for(lock, std::chrono::seconds(1), [this] { return stopping_; });
  }
}

}  // namespace calotype::server
