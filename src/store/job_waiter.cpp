#include "store/job_waiter.h"

#include <algorithm>

#include "store/sql.h"

namespace calotype::store {
using std::chrono::milliseconds;
using std::chrono::steady_clock;
namespace {

constexpr milliseconds kSqliteInterval(25), kPostgresInterval(100);
constexpr milliseconds kSpacing(8);  // thousands of commits a second must not become as many questions
constexpr milliseconds kLongest = std::chrono::hours(1);
constexpr size_t kIdsPerQuestion = 400;

std::map<std::string, int64_t> ask(Session& session, const std::vector<std::string>& ids) {
  std::map<std::string, int64_t> changes;
  for (size_t i = 0; i < ids.size(); i += kIdsPerQuestion) {
    Conditions conditions;
    conditions.add_one_of("id", {ids.begin() + static_cast<std::ptrdiff_t>(i),
                                 ids.begin() + static_cast<std::ptrdiff_t>(std::min(i + kIdsPerQuestion, ids.size()))});
    for (const Row& row : rows(session, "SELECT id, change FROM jobs" + conditions.where(), conditions.values()))
      changes[row.text("id")] = row.integer("change");
  }
  return changes;
}

}  // namespace

JobWaiter::JobWaiter(std::shared_ptr<Database> database) : database_(std::move(database)) {}

JobWaiter::~JobWaiter() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void JobWaiter::poke() {
  {
    const std::lock_guard lock(mutex_);
    if (watched_.empty()) return;
    poked_ = true;
  }
  work_.notify_one();
}

bool JobWaiter::wait(const std::string& id, int64_t after_change, milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  Watched& watched = watched_[id];
  ++watched.waiting;
  if (!watched.asked) {
    poked_ = true;
    work_.notify_one();
  }
  watched.changed.wait_for(lock, std::min(timeout, kLongest),
                           [&] { return watched.missing || watched.change > after_change; });
  const bool above = watched.change > after_change;
  if (--watched.waiting == 0) watched_.erase(id);
  return above;
}

void JobWaiter::run() {
  std::optional<Connection> session;
  int64_t version = -1;
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (watched_.empty()) {
      work_.wait(lock);
      continue;
    }
    poked_ = false;
    lock.unlock();
    const auto begun = steady_clock::now();
    try {
      if (!session) session.emplace(database_->session());
      look(*session, version);
    } catch (const base::Error&) {  // the database restarts or is busy; waiting threads have their timeouts
      session.reset();
      version = -1;
    }
    std::this_thread::sleep_until(begun + kSpacing);
    lock.lock();
    work_.wait_for(lock, database_->postgres() ? kPostgresInterval : kSqliteInterval, [&] { return stop_ || poked_; });
  }
}

void JobWaiter::look(Session& session, int64_t& version) {
  const int64_t newest = database_->data_version(session);
  const std::vector<std::string> ids = to_ask(newest != version);
  version = newest;
  if (!ids.empty()) tell(ids, ask(session, ids));
}

std::vector<std::string> JobWaiter::to_ask(bool all) {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> ids;
  for (const auto& [id, watched] : watched_)
    if (all || !watched.asked) ids.push_back(id);
  return ids;
}

void JobWaiter::tell(const std::vector<std::string>& ids, const std::map<std::string, int64_t>& changes) {
  const std::lock_guard lock(mutex_);
  for (const std::string& id : ids) {
    const auto watched = watched_.find(id);
    if (watched == watched_.end()) continue;
    const auto change = changes.find(id);
    Watched& w = watched->second;
    w.asked = true;
    w.missing = change == changes.end();
    if (!w.missing && change->second == w.change) continue;
    if (!w.missing) w.change = change->second;
    w.changed.notify_all();
  }
}

}  // namespace calotype::store
