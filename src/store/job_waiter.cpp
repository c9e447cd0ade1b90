#include "store/job_waiter.h"

#include <algorithm>
#include <utility>

#include "store/sql.h"

namespace calotype::store {
using std::chrono::milliseconds;
using std::chrono::steady_clock;
namespace {

// How often it is asked when nobody tells: of changes, and of the queue.
constexpr milliseconds kSqliteInterval(25), kPostgresInterval(100), kQueueInterval(50);
constexpr milliseconds kToldInterval(1000);
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
  notifications_.reset();
}

/// Not before somebody waits: a store that is only opened and closed needs no further connection.
void JobWaiter::listen() {
  if (!notifications_ && database_->postgres())
    notifications_ = std::make_unique<Notifications>(
        database_->libpq_words(), [this](const std::string& channel, const std::string& text) { hear(channel, text); });
}

void JobWaiter::hear(const std::string& channel, const std::string& text) {
  if (channel == kJobChannel) return poke(text);
  {
    const std::lock_guard lock(mutex_);
    ++queue_news_;
    if (channel.empty()) all_ = poked_ = true;
  }
  work_.notify_one();
  queue_.notify_all();
}

void JobWaiter::poke(const std::string& id) {
  {
    const std::lock_guard lock(mutex_);
    const auto watched = watched_.find(id);
    if (watched == watched_.end()) return;
    watched->second.asked = false;
    poked_ = true;
  }
  work_.notify_one();
}

int64_t JobWaiter::queue_news() {
  const std::lock_guard lock(mutex_);
  listen();
  return queue_news_;
}

void JobWaiter::wait_for_queue(int64_t news, std::chrono::nanoseconds timeout) {
  std::unique_lock lock(mutex_);
  const std::chrono::nanoseconds interval = listening() ? kToldInterval : kQueueInterval;
  queue_.wait_for(lock, std::min(timeout, interval), [&] { return queue_news_ > news; });
}

bool JobWaiter::wait(const std::string& id, int64_t after_change, milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  listen();
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
    bool all = std::exchange(all_, false);
    lock.unlock();
    const auto begun = steady_clock::now();
    try {
      if (!session) session.emplace(database_->session());
      look(*session, version, all);
      all = false;
    } catch (const base::Error&) {  // the database restarts or is busy; waiting threads have their timeouts
      session.reset();
      version = -1;
      all = true;
    }
    std::this_thread::sleep_until(begun + kSpacing);
    lock.lock();
    const milliseconds interval = listening()             ? kToldInterval
                                  : database_->postgres() ? kPostgresInterval
                                                          : kSqliteInterval;
    const bool woken = work_.wait_for(lock, interval, [&] { return stop_ || poked_; });
    all_ |= all || (database_->postgres() && !woken);
  }
}

void JobWaiter::look(Session& session, int64_t& version, bool all) {
  if (!database_->postgres()) {
    const int64_t newest = database_->data_version(session);
    all |= newest != version;
    version = newest;
  }
  const std::vector<std::string> ids = to_ask(all);
  if (!ids.empty()) tell(ids, ask(session, ids));
}

std::vector<std::string> JobWaiter::to_ask(bool all) {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> ids;
  for (auto& [id, watched] : watched_) {
    if (!all && watched.asked) continue;
    watched.asked = true;  // before the question: who pokes during it has it asked again
    ids.push_back(id);
  }
  return ids;
}

void JobWaiter::tell(const std::vector<std::string>& ids, const std::map<std::string, int64_t>& changes) {
  const std::lock_guard lock(mutex_);
  for (const std::string& id : ids) {
    const auto watched = watched_.find(id);
    if (watched == watched_.end()) continue;
    const auto change = changes.find(id);
    Watched& w = watched->second;
    w.missing = change == changes.end();
    if (!w.missing && change->second == w.change) continue;
    if (!w.missing) w.change = change->second;
    w.changed.notify_all();
  }
}

}  // namespace calotype::store
