// Many at once: threads, processes, and processes that are killed.
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "store/job_store.h"
#include "store/sql.h"
#include "support/stores.h"

namespace calotype::store {
namespace {

using base::ErrorKind;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using test::ended_well;
using test::error_of;
using test::in_new_process;

class WithJobs : public test::OnEveryDatabase {
 protected:
  /// The store is closed again when this returns.
  void make_jobs(int count) {
    Store store = open();
    for (int i = 0; i < count; ++i)
      store.jobs->create({.id = "job-" + std::to_string(i), .model = "o/m", .version = "v", .input = {{"i", i}}});
  }
};
class ClaimTest : public WithJobs {};
CALOTYPE_ON_EVERY_DATABASE(ClaimTest);

void work_off(JobStore& jobs, const std::string& name, const std::function<void(const Claim&)>& done) {
  while (const auto claim = jobs.claim(name, {})) {
    jobs.start(*claim);
    jobs.finish(*claim, JobStatus::succeeded, claim->job.input["i"], {}, {});
    done(*claim);
  }
}

TEST_P(ClaimTest, ThreadsTakeEachJobOnce) {
  make_jobs(500);
  Store store = open();
  std::mutex mutex;
  std::multiset<std::string> taken;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&, t] {
      work_off(*store.jobs, "w" + std::to_string(t), [&](const Claim& claim) {
        const std::lock_guard lock(mutex);
        taken.insert(claim.job.id);
      });
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken.size(), 500u);
  EXPECT_EQ(std::set(taken.begin(), taken.end()).size(), 500u);
}

TEST_P(ClaimTest, ProcessesTakeEachJobOnce) {
  make_jobs(500);
  std::vector<pid_t> workers;
  for (int w = 0; w < 2; ++w)
    workers.push_back(in_new_process([&, w] {
      Store store = open();
      std::ofstream list(folder_ / ("taken-" + std::to_string(w)));
      work_off(*store.jobs, "w" + std::to_string(w), [&](const Claim& claim) {
        list << claim.job.id << "\n";
        std::this_thread::sleep_for(
            milliseconds(1));  // jobs of no length: whoever opens first has done all 500 by then
      });
    }));
  for (const pid_t worker : workers) EXPECT_TRUE(ended_well(worker));
  std::multiset<std::string> taken;
  for (int w = 0; w < 2; ++w) {
    std::ifstream list(folder_ / ("taken-" + std::to_string(w)));
    size_t own = 0;
    for (std::string id; list >> id; ++own) taken.insert(id);
    EXPECT_GT(own, 0u);  // both had a share
  }
  EXPECT_EQ(taken.size(), 500u);
  EXPECT_EQ(std::set(taken.begin(), taken.end()).size(), 500u);
  Store store = open();
  for (const Job& job : store.jobs->list({.limit = 1000}).jobs) {
    EXPECT_EQ(job.status, JobStatus::succeeded);
    EXPECT_EQ(job.output, job.input["i"]);
    EXPECT_EQ(job.attempt, 1);
  }
}

// Workers die at random moments of their work; whoever comes next finds every job, and none ends twice.
TEST_P(ClaimTest, KilledProcessesLoseNothing) {
  constexpr int kJobs = 120;
  make_jobs(kJobs);
  std::mt19937 random(7);
  for (int round = 0; round < 12; ++round) {
    std::vector<pid_t> workers;
    for (int w = 0; w < 2; ++w)
      workers.push_back(in_new_process([&, w] {
        Store store = open();
        while (const auto claim = store.jobs->claim("w" + std::to_string(round) + "-" + std::to_string(w), {})) {
          store.jobs->start(*claim);
          for (int i = 0; i < 3; ++i) store.jobs->log(*claim, "step\n");
          store.jobs->finish(*claim, JobStatus::succeeded, claim->job.input["i"], {}, {});
        }
      }));
    std::this_thread::sleep_for(milliseconds(20 + random() % 60));
    for (const pid_t worker : workers) {
      ::kill(worker, SIGKILL);
      int status = 0;
      ::waitpid(worker, &status, 0);
    }
    Store store = open();
    store.jobs->reconcile(now() + kStaleAfter + kSecond);
  }
  Store store = open();
  work_off(*store.jobs, "last", [](const Claim&) {});
  const auto all = store.jobs->list({.limit = 1000}).jobs;
  EXPECT_EQ(all.size(), size_t{kJobs});
  for (const Job& job : all) {
    const bool lost_too_often = job.status == JobStatus::failed && job.losses == kMaximumLosses;
    EXPECT_TRUE(job.status == JobStatus::succeeded || lost_too_often) << job.id << " " << name(job.status);
    int ends = 0;
    for (const JobEvent& event : store.jobs->events(job.id, 0))
      ends += event.kind == "status" && event.data == "succeeded";
    EXPECT_EQ(ends, lost_too_often ? 0 : 1);
  }
}

TEST_P(ClaimTest, AKilledClaimantIsNoticed) {
  make_jobs(1);
  const pid_t worker = in_new_process([&] {
    Store store = open();
    const Claim claim = *store.jobs->claim("doomed", {});
    store.jobs->start(claim);
    for (;;) store.jobs->log(claim, "x");
  });
  std::this_thread::sleep_for(milliseconds(300));
  Store store = open();
  for (int i = 0; i < 200 && store.jobs->find("job-0")->logs.empty(); ++i)
    std::this_thread::sleep_for(milliseconds(20));
  ::kill(worker, SIGKILL);
  int status = 0;
  ::waitpid(worker, &status, 0);
  EXPECT_FALSE(store.jobs->claim("next", {}));
  EXPECT_EQ(store.jobs->reconcile(now()).requeued, 0);  // it might be slow only
  EXPECT_EQ(store.jobs->reconcile(now() + kStaleAfter + kSecond).requeued, 1);
  const Claim next = *store.jobs->claim("next", {});
  EXPECT_EQ(next.attempt, 2);
  EXPECT_EQ(next.job.losses, 1);
}

TEST_P(ClaimTest, EitherCancelOrFinishWins) {
  constexpr int kJobs = 60;
  make_jobs(kJobs);
  Store worker = open(), server = open();
  std::map<std::string, bool> finished;
  std::thread canceling([&] {
    for (int i = 0; i < kJobs; ++i) server.jobs->cancel("job-" + std::to_string(i));
  });
  while (const auto claim = worker.jobs->claim("w", {})) {
    const auto error = error_of([&] {
      worker.jobs->start(*claim);
      worker.jobs->finish(*claim, JobStatus::succeeded, 1, {}, {});
    });
    EXPECT_TRUE(!error || error == ErrorKind::conflict);
    finished[claim->job.id] = !error;
  }
  canceling.join();
  for (int i = 0; i < kJobs; ++i) {
    const Job job = *server.jobs->find("job-" + std::to_string(i));
    EXPECT_EQ(job.status, finished[job.id] ? JobStatus::succeeded : JobStatus::canceled);
    EXPECT_EQ(job.output.is_null(), !finished[job.id]);
  }
}

TEST_P(ClaimTest, OneRequestFromManyThreadsIsOneJob) {
  Store store = open();
  std::vector<std::thread> threads;
  std::atomic<int> same = 0;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back(
        [&] { same += store.jobs->create({.id = "one", .model = "o/m", .version = "v"}).id == "one"; });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, 8);
  EXPECT_EQ(store.jobs->list({}).jobs.size(), 1u);
}

TEST_P(ClaimTest, WaitersWakeForAnotherProcess) {
  make_jobs(2);
  const pid_t worker = in_new_process([&] {
    Store store = open();
    std::this_thread::sleep_for(milliseconds(400));
    store.jobs->start(*store.jobs->claim("w", {}));
    std::this_thread::sleep_for(milliseconds(200));
  });
  Store store = open();
  EXPECT_FALSE(store.jobs->wait_for_change("job-1", 1, milliseconds(50)));
  EXPECT_TRUE(store.jobs->wait_for_change("job-1", 0, milliseconds(5000)));  // is above already
  const auto begun = steady_clock::now();
  EXPECT_FALSE(store.jobs->wait_for_change("nobody", 0, milliseconds(5000)));
  EXPECT_LT(steady_clock::now() - begun, milliseconds(2000));
  constexpr int kThreads = 100;
  std::atomic<int> woken = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] { woken += store.jobs->wait_for_change("job-0", 1, milliseconds(20'000)); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(woken, kThreads);
  EXPECT_LT(steady_clock::now() - begun, milliseconds(10'000));
  EXPECT_TRUE(ended_well(worker));
}

TEST_P(ClaimTest, WorkersWakeForNewJobs) {
  Store store = open(), server = open();
  EXPECT_FALSE(store.jobs->claim("w", {}));
  EXPECT_FALSE(store.jobs->wait_for_work(milliseconds(100)));
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(100));
    server.jobs->create({.model = "o/m", .version = "v"});
  });
  EXPECT_TRUE(store.jobs->wait_for_work(milliseconds(20'000)));
  later.join();
  EXPECT_TRUE(store.jobs->claim("w", {}));
}

// What PostgreSQL tells; on SQLite everybody asks.
class NotificationTest : public WithJobs {
 protected:
  static int64_t listeners(Store& store) {
    Connection session = store.database->session();
    return first_row(session,
                     "SELECT COUNT(*) AS listeners FROM pg_stat_activity WHERE datname = current_database() AND "
                     "query LIKE 'LISTEN calotype%'")
        ->integer("listeners");
  }
  static bool come_true(const std::function<bool()>& condition) {
    for (int i = 0; i < 200 && !condition(); ++i) std::this_thread::sleep_for(milliseconds(50));
    return condition();
  }
  /// Milliseconds from a commit to the end of a wait for it, the median of several.
  static double delay(const std::function<void()>& wait, const std::function<void()>& commit) {
    std::vector<double> delays;
    for (int i = 0; i < 15; ++i) {
      steady_clock::time_point woken;
      std::thread waiter([&] {
        wait();
        woken = steady_clock::now();
      });
      std::this_thread::sleep_for(milliseconds(60 + 7 * i));  // it waits by now, at one moment or another
      commit();
      const auto committed = steady_clock::now();
      waiter.join();
      delays.push_back(std::chrono::duration<double, std::milli>(woken - committed).count());
    }
    std::ranges::sort(delays);
    return delays[delays.size() / 2];
  }
};
INSTANTIATE_TEST_SUITE_P(Databases, NotificationTest, testing::Values("postgres"),
                         [](const auto& test) { return test.param; });

// Who asks every 100 ms (for changes) or 50 ms (for work) is late by half of that; on a busy machine somebody else's
// turn may come first, so that one good try of several is enough.
TEST_P(NotificationTest, WaitersWakeAtOnce) {
  make_jobs(1);
  Store store = open(), other = open();
  const Claim claim = *other.jobs->claim("w", {});
  double changed = 1e9, queued = 1e9;
  for (int i = 0; i < 5 && changed > 20; ++i)
    changed =
        delay([&] { store.jobs->wait_for_change("job-0", store.jobs->find("job-0")->change, milliseconds(9000)); },
              [&] { other.jobs->log(claim, "x"); });
  for (int i = 0; i < 5 && queued > 10; ++i) {
    const ClaimFilter none{.models = {"no/model"}};
    queued = delay(
        [&] {
          store.jobs->claim("w", none);
          store.jobs->wait_for_work(milliseconds(9000));
        },
        [&] { other.jobs->create({.model = "o/m", .version = "v"}); });
  }
  EXPECT_LT(changed, 20);
  EXPECT_LT(queued, 10);
}

TEST_P(NotificationTest, WaitingGoesOnWhenTheConnectionBreaks) {
  make_jobs(2);
  Store store = open(), other = open();
  EXPECT_EQ(listeners(store), 0);  // nobody waits yet
  EXPECT_FALSE(store.jobs->wait_for_change("job-0", 1, milliseconds(50)));
  ASSERT_TRUE(come_true([&] { return listeners(store) == 1; }));
  std::thread waiter([&] { EXPECT_TRUE(store.jobs->wait_for_change("job-0", 1, milliseconds(20'000))); });
  std::this_thread::sleep_for(milliseconds(100));
  {
    Connection session = other.database->session();
    rows(session,
         "SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity WHERE datname = current_database() AND "
         "query LIKE 'LISTEN calotype%'");
  }
  other.jobs->start(*other.jobs->claim("w", {}));
  waiter.join();
  EXPECT_TRUE(come_true([&] { return listeners(store) == 1; }));
}

}  // namespace
}  // namespace calotype::store
