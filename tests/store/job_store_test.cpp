// One job at a time: what is stored, how its status moves, what a lost claim may not do. tests/store/claim_test.cpp has
// the crowds.
#include "store/job_store.h"

#include <fstream>
#include <thread>

#include "support/stores.h"

namespace calotype::store {
namespace {

using base::ErrorKind;
using std::chrono::milliseconds;
using test::error_of;

class JobStoreTest : public test::OnEveryDatabase {};
CALOTYPE_ON_EVERY_DATABASE(JobStoreTest);

NewJob request(const std::string& prompt = "a red fox") {
  return {.model = "black-forest-labs/flux-schnell", .version = std::string(64, 'a'), .input = {{"prompt", prompt}}};
}

TEST_P(JobStoreTest, KeepsWhatWasAskedFor) {
  Store store = open();
  NewJob asked = request();
  asked.kind = JobKind::training;
  asked.input = {
      {"prompt", "füchse 🦊 \" ' ; --"}, {"seed", 9007199254740993}, {"scale", 0.1}, {"list", {1, nullptr, true}}};
  asked.webhook = Webhook{.url = "https://example.com/hook?a=1", .events = {"start", "completed"}};
  asked.source = "web";
  asked.deployment = "me/dep";
  asked.destination = "me/flux-mine";
  asked.data_uris = true;
  asked.deadline = now() + 3600 * kSecond;
  asked.token_id = "token";
  const Job made = store.jobs->create(asked);
  const Job job = *open().jobs->find(made.id);
  EXPECT_EQ(job.id.size(), 26u);
  EXPECT_EQ(job.id.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz"), std::string::npos);
  EXPECT_EQ(job.kind, JobKind::training);
  EXPECT_EQ(job.input, asked.input);
  EXPECT_EQ(job.webhook->url, asked.webhook->url);
  EXPECT_EQ(job.webhook->events, asked.webhook->events);
  EXPECT_EQ(job.source, "web");
  EXPECT_EQ(job.deployment, "me/dep");
  EXPECT_EQ(job.destination, "me/flux-mine");
  EXPECT_TRUE(job.data_uris);
  EXPECT_EQ(job.deadline, asked.deadline);
  EXPECT_EQ(job.token_id, "token");
  EXPECT_EQ(job.status, JobStatus::starting);
  EXPECT_TRUE(job.output.is_null());
  EXPECT_EQ(job.logs, "");
  EXPECT_FALSE(job.error || job.started_at || job.completed_at);
  EXPECT_LT(std::abs(job.created_at - now()), 60 * kSecond);
  EXPECT_GE(job.stream_token.size(), 32u);  // 128 bits are 22 characters of base64
  EXPECT_EQ(store.jobs->find_by_stream(job.stream_token)->id, job.id);
  EXPECT_FALSE(store.jobs->find_by_stream("") || store.jobs->find("") || store.jobs->find("nobody"));
}

TEST_P(JobStoreTest, SameIdIsSameJob) {
  Store store = open();
  NewJob asked = request();
  asked.id = "my-own_ID1";
  const Job first = store.jobs->create(asked);
  EXPECT_EQ(store.jobs->create(asked).created_at, first.created_at);
  EXPECT_EQ(store.jobs->list({}).jobs.size(), 1u);
  asked.input["prompt"] = "a blue fox";
  EXPECT_EQ(error_of([&] { store.jobs->create(asked); }), ErrorKind::conflict);
  for (const std::string& id :
       std::vector<std::string>{"../etc", "a/b", "a:b", "a b", "a\nb", "ä", std::string(65, 'a')}) {
    asked.id = id;
    EXPECT_EQ(error_of([&] { store.jobs->create(asked); }), ErrorKind::bad_input) << id;
  }
}

TEST_P(JobStoreTest, GoesThroughItsLife) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  const std::string id = jobs.create(request()).id;
  const Claim claim = *jobs.claim("w1", {});
  EXPECT_EQ(claim.job.id, id);
  EXPECT_EQ(claim.attempt, 1);
  EXPECT_EQ(jobs.find(id)->status, JobStatus::starting);
  EXPECT_FALSE(jobs.claim("w2", {}));
  jobs.start(claim);
  jobs.start(claim);
  EXPECT_EQ(jobs.find(id)->status, JobStatus::processing);
  EXPECT_TRUE(jobs.find(id)->started_at);
  jobs.log(claim, "Using seed: 7\n");
  jobs.log(claim, " 50%|█████     | 2/4\n");
  jobs.progress(claim, {.stage = "denoise", .done = 1, .total = 4, .eta_seconds = 1.5});
  jobs.progress(claim, {.stage = "denoise", .done = 2, .total = 4, .eta_seconds = 1});
  jobs.preview(claim, "file1");
  jobs.output(claim, Json::array({"a"}));
  const Job half = *jobs.find(id);
  EXPECT_EQ(half.logs, "Using seed: 7\n 50%|█████     | 2/4\n");
  EXPECT_EQ(half.progress.done, 2);
  EXPECT_EQ(half.progress.eta_seconds, 1);
  EXPECT_EQ(half.preview_file, "file1");
  jobs.finish(claim, JobStatus::succeeded, Json::array({"a", "b"}), {}, {{"steps", 4}});
  const Job job = *jobs.find(id);
  EXPECT_EQ(job.status, JobStatus::succeeded);
  EXPECT_EQ(job.output, Json::array({"a", "b"}));
  EXPECT_EQ(job.metrics["steps"], 4);
  EXPECT_NEAR(job.metrics["total_time"].get<double>(), static_cast<double>(*job.completed_at - job.created_at) / 1e6,
              1e-6);
  EXPECT_NEAR(job.metrics["predict_time"].get<double>(), static_cast<double>(*job.completed_at - *job.started_at) / 1e6,
              1e-6);
  std::string story;
  int64_t last = 0;
  for (const JobEvent& event : jobs.events(id, 0)) {
    EXPECT_GT(event.seq, last);
    last = event.seq;
    story += event.kind + " " + event.data + "|";
  }
  EXPECT_EQ(
      story,
      "status processing|logs Using seed: 7\n|logs  50%|█████     | 2/4\n|output \"a\"|output \"b\"|status succeeded|");
  EXPECT_EQ(last, job.change);
  EXPECT_TRUE(jobs.events(id, job.change).empty());
}

TEST_P(JobStoreTest, TerminalStaysTerminal) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  for (const JobStatus status : {JobStatus::succeeded, JobStatus::failed, JobStatus::canceled}) {
    const std::string id = jobs.create(request()).id;
    const Claim claim = *jobs.claim("w", {});
    jobs.start(claim);
    jobs.finish(claim, status, "out", status == JobStatus::failed ? std::optional<std::string>("no") : std::nullopt,
                {});
    const Job before = *jobs.find(id);
    EXPECT_EQ(error_of([&] { jobs.start(claim); }), ErrorKind::conflict);
    EXPECT_EQ(error_of([&] { jobs.log(claim, "late"); }), ErrorKind::conflict);
    EXPECT_EQ(error_of([&] { jobs.output(claim, 1); }), ErrorKind::conflict);
    EXPECT_EQ(error_of([&] { jobs.progress(claim, {}); }), ErrorKind::conflict);
    EXPECT_EQ(error_of([&] { jobs.preview(claim, "f"); }), ErrorKind::conflict);
    EXPECT_EQ(error_of([&] { jobs.finish(claim, JobStatus::failed, {}, "late", {}); }), ErrorKind::conflict);
    EXPECT_EQ(jobs.cancel(id).status, status);
    jobs.release(claim);
    EXPECT_FALSE(jobs.heartbeat(claim).still_mine);
    jobs.reconcile(now() + 3600 * kSecond);
    const Job after = *jobs.find(id);
    EXPECT_EQ(after.status, status);
    EXPECT_EQ(after.change, before.change);
    EXPECT_EQ(after.logs, "");
    EXPECT_EQ(after.completed_at, before.completed_at);
  }
  const Claim claim{.job = *jobs.find(jobs.create(request()).id), .worker = "", .attempt = 0};
  EXPECT_EQ(error_of([&] { jobs.finish(claim, JobStatus::processing, {}, {}, {}); }), ErrorKind::internal);
}

TEST_P(JobStoreTest, CancelEndsQueuedAndRunningJobs) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  const Job queued = jobs.cancel(jobs.create(request()).id);
  EXPECT_EQ(queued.status, JobStatus::canceled);
  EXPECT_TRUE(queued.completed_at);
  EXPECT_FALSE(queued.started_at);
  EXPECT_FALSE(queued.metrics.contains("predict_time"));
  EXPECT_FALSE(jobs.claim("w", {}));
  const std::string id = jobs.create(request()).id;
  const Claim claim = *jobs.claim("w", {});
  jobs.start(claim);
  jobs.output(claim, Json::array({"half"}));
  EXPECT_TRUE(jobs.heartbeat(claim).still_mine);
  const Job running = jobs.cancel(id);
  EXPECT_EQ(running.status, JobStatus::canceled);
  EXPECT_TRUE(running.output.is_null());
  EXPECT_TRUE(running.metrics.contains("predict_time"));
  const HeartbeatAnswer answer = jobs.heartbeat(claim);
  EXPECT_FALSE(answer.still_mine);
  EXPECT_TRUE(answer.canceled);
  EXPECT_EQ(error_of([&] { jobs.cancel("nobody"); }), ErrorKind::not_found);
}

TEST_P(JobStoreTest, DeadlinesEndJobs) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  NewJob asked = request();
  asked.deadline = now() + 3600 * kSecond;
  const std::string waiting = jobs.create(asked).id, running = jobs.create(asked).id;
  EXPECT_EQ(jobs.reconcile(now()).canceled, 0);
  const Claim claim = *jobs.claim("w", {});
  EXPECT_EQ(claim.job.id, waiting);
  EXPECT_EQ(jobs.reconcile(now() + 3601 * kSecond).canceled, 2);
  EXPECT_EQ(jobs.find(waiting)->status, JobStatus::canceled);
  EXPECT_EQ(jobs.find(running)->status, JobStatus::canceled);
  asked.deadline = now() - 1;
  jobs.create(asked);
  EXPECT_FALSE(jobs.claim("w", {}));  // too late to begin
  asked.deadline = now() + kSecond / 5;
  jobs.create(asked);
  const Claim last = *jobs.claim("w", {});
  std::this_thread::sleep_for(milliseconds(250));
  const HeartbeatAnswer answer = jobs.heartbeat(last);
  EXPECT_FALSE(answer.still_mine);
  EXPECT_TRUE(answer.canceled);
}

TEST_P(JobStoreTest, LostWorkersGiveJobsBackAFewTimes) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  const std::string id = jobs.create(request()).id;
  for (int loss = 1; loss <= kMaximumLosses; ++loss) {
    const Claim claim = *jobs.claim("w" + std::to_string(loss), {});
    jobs.start(claim);
    jobs.log(claim, "try\n");
    jobs.output(claim, Json::array({"x"}));
    EXPECT_EQ(jobs.reconcile(now() + kStaleAfter - kSecond).requeued, 0);
    const Reconciled done = jobs.reconcile(now() + kStaleAfter + kSecond);
    EXPECT_EQ(done.requeued, loss < kMaximumLosses ? 1 : 0);
    EXPECT_EQ(done.failed, loss < kMaximumLosses ? 0 : 1);
    EXPECT_EQ(error_of([&] { jobs.log(claim, "ghost"); }), ErrorKind::conflict);
    EXPECT_EQ(error_of([&] { jobs.finish(claim, JobStatus::succeeded, {}, {}, {}); }), ErrorKind::conflict);
    if (loss < kMaximumLosses) {
      EXPECT_EQ(jobs.find(id)->status, JobStatus::starting);
      EXPECT_FALSE(jobs.find(id)->started_at);
      EXPECT_TRUE(jobs.find(id)->output.is_null());
    }
  }
  const Job job = *jobs.find(id);
  EXPECT_EQ(job.status, JobStatus::failed);
  EXPECT_NE(job.error->find("w3"), std::string::npos) << *job.error;
  EXPECT_EQ(job.logs.find("ghost"), std::string::npos);
}

TEST_P(JobStoreTest, ReleasedJobsComeFirstAndAreNoLoss) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  const std::string id = jobs.create(request()).id;
  jobs.create(request("later"));
  for (int i = 0; i < 2 * kMaximumLosses; ++i) {
    const Claim claim = *jobs.claim("w", {});
    ASSERT_EQ(claim.job.id, id);
    jobs.start(claim);
    jobs.release(claim);
    EXPECT_EQ(error_of([&] { jobs.log(claim, "x"); }), ErrorKind::conflict);
  }
  EXPECT_EQ(jobs.find(id)->status, JobStatus::starting);
  EXPECT_EQ(jobs.find(id)->losses, 0);
}

TEST_P(JobStoreTest, PredictionsGoBeforeTrainingsAndLoadedWeightsFirst) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  const auto make = [&](const std::string& model, JobKind kind) {
    return jobs.create({.kind = kind, .model = model, .version = "v"}).id;
  };
  const std::string training = make("o/trainer", JobKind::training), a1 = make("o/a", JobKind::prediction),
                    b1 = make("o/b", JobKind::prediction), a2 = make("o/a", JobKind::prediction);
  EXPECT_EQ(jobs.queue_place(a1), 0);
  EXPECT_EQ(jobs.queue_place(a2), 2);
  EXPECT_EQ(jobs.queue_place(training), 3);
  EXPECT_EQ(jobs.claim("w", {.preferred_models = {"o/b"}})->job.id, b1);
  EXPECT_FALSE(jobs.claim("w", {.models = {"o/none"}}));
  EXPECT_FALSE(jobs.claim("w", {.kinds = {JobKind::training}, .models = {"o/a"}}));
  EXPECT_EQ(jobs.claim("w", {})->job.id, a1);
  const std::string b2 = make("o/b", JobKind::prediction);
  // a2 has waited longer than (no) patience: loaded weights do not count any more.
  EXPECT_EQ(jobs.claim("w", {.preferred_models = {"o/b"}, .patience = 0})->job.id, a2);
  EXPECT_EQ(jobs.claim("w", {.training_patience = 0})->job.id, training);
  EXPECT_EQ(jobs.claim("w", {})->job.id, b2);
  EXPECT_EQ(jobs.queue_place(training), 0);
  EXPECT_EQ(error_of([&] { jobs.queue_place("nobody"); }), ErrorKind::not_found);
}

TEST_P(JobStoreTest, HeartbeatTellsOfWaitingPredictions) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  jobs.create({.kind = JobKind::training, .model = "o/t", .version = "v"});
  const Claim claim = *jobs.claim("w", {});
  EXPECT_EQ(jobs.heartbeat(claim).predictions_waiting, 0);
  jobs.create({.kind = JobKind::training, .model = "o/t", .version = "v"});
  jobs.create(request());
  jobs.create(request());
  EXPECT_EQ(jobs.heartbeat(claim).predictions_waiting, 2);
  jobs.claim("other", {.kinds = {JobKind::prediction}});
  EXPECT_EQ(jobs.heartbeat(claim).predictions_waiting, 1);
}

TEST_P(JobStoreTest, SecretsAreEncryptedAndGoWithTheJob) {
  const std::string secret = "hf_verysecrettoken123";
  std::string id;
  {
    Store store = open();
    NewJob asked = request();
    asked.secrets = {{"hf_token", secret}, {"empty", ""}};
    id = store.jobs->create(asked).id;
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(options_.data)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    EXPECT_EQ(bytes.find(secret), std::string::npos) << entry.path();
  }
  EXPECT_EQ(std::filesystem::status(options_.data / "secret.key").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  Store store = open();
  const Claim claim = *store.jobs->claim("w", {});
  EXPECT_EQ(claim.secrets.at("hf_token"), secret);
  EXPECT_EQ(claim.secrets.at("empty"), "");
  store.jobs->release(claim);
  const Claim again = *store.jobs->claim("w", {});
  EXPECT_EQ(again.secrets.at("hf_token"), secret);
  store.jobs->finish(again, JobStatus::succeeded, {}, {}, {});
  Connection connection = store.database->session();
  Poco::Data::Session& session = connection;
  int64_t left = -1;
  session << "SELECT COUNT(*) FROM job_secrets", Poco::Data::Keywords::into(left), Poco::Data::Keywords::now;
  EXPECT_EQ(left, 0);
}

TEST_P(JobStoreTest, LongLogsLoseTheirMiddle) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  const std::string id = jobs.create(request()).id;
  const Claim claim = *jobs.claim("w", {});
  jobs.log(claim, "the very first line\n");
  int64_t seen = 0;
  size_t followed = 0, written = 20;
  for (int i = 0; i < 600; ++i) {  // 3 MB, with characters of three bytes that must not be cut in two
    std::string text = std::to_string(i) + " ";
    while (text.size() < 5000) text += "█";
    written += text.size();
    jobs.log(claim, text);
    for (const JobEvent& event : jobs.events(id, seen)) {
      seen = event.seq;
      followed += event.data.size();
    }
  }
  jobs.log(claim, "the very last line\n");
  const Job job = *jobs.find(id);
  EXPECT_LE(job.logs.size(), kLogLimit);
  EXPECT_GT(job.logs.size(), kLogLimit / 2);
  EXPECT_TRUE(job.logs.starts_with("the very first line\n"));
  EXPECT_TRUE(job.logs.ends_with("the very last line\n"));
  EXPECT_EQ(followed, written);  // who reads along misses nothing
  // The mark names exactly what is missing.
  const size_t mark = job.logs.find("\n[… ");
  ASSERT_NE(mark, std::string::npos);
  const size_t end = job.logs.find("]\n", mark) + 2;
  const size_t missing = std::stoul(job.logs.substr(mark + 6));
  EXPECT_EQ(job.logs.size() - (end - mark) + missing, written + 19);
  EXPECT_EQ(job.logs.find("\n[… ", end), std::string::npos);
  jobs.log(claim, std::string(5'000'000, 'x'));
  EXPECT_LE(jobs.find(id)->logs.size(), kLogLimit);
}

TEST_P(JobStoreTest, HostileTextIsStoredAsText) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  const std::string nul("q\0z", 3), broken = "caf\xe9 \xff\xc0\x80";
  for (const std::string& text :
       {std::string("'; DROP TABLE jobs; --"), std::string("$1 ? %s \\ % _"), nul, broken, std::string(100'000, 'x')}) {
    NewJob asked = request(text);
    asked.model = "o/" + text.substr(0, 50);
    asked.token_id = text;
    const std::string id = jobs.create(asked).id;
    const Claim claim = *jobs.claim("w " + text.substr(0, 10), {});
    ASSERT_EQ(claim.job.id, id);
    jobs.log(claim, text + broken + nul);
    jobs.finish(claim, JobStatus::failed, {{"text", text}}, text + broken, {{"text", broken}});
    EXPECT_TRUE(jobs.find(id)->logs.ends_with("caf\uFFFD \uFFFD\uFFFD\uFFFDqz")) << jobs.find(id)->logs;
  }
  EXPECT_EQ(jobs.list({}).jobs.size(), 5u);
  EXPECT_EQ(jobs.list({.search = "drop TABLE"}).jobs.size(), 1u);
  EXPECT_EQ(jobs.list({.search = "%"}).jobs.size(), 1u);
  EXPECT_EQ(jobs.list({.search = "' OR '1'='1"}).jobs.size(), 0u);
  EXPECT_EQ(jobs.list({.search = nul}).jobs.size(), 1u);  // NUL is dropped on both sides
  EXPECT_FALSE(jobs.find(broken) || jobs.find(nul));
}

TEST_P(JobStoreTest, PagesStayPutWhileJobsArrive) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  std::vector<std::string> ids;
  for (int i = 0; i < 25; ++i) ids.push_back(jobs.create(request(std::to_string(i))).id);
  std::vector<std::string> seen;
  JobPage page = jobs.list({.limit = 10});
  EXPECT_EQ(page.previous, "");
  for (;;) {
    for (const Job& job : page.jobs) seen.push_back(job.id);
    if (page.next.empty()) break;
    for (int i = 0; i < 3; ++i) jobs.create(request("new"));
    page = jobs.list({.cursor = page.next, .limit = 10});
  }
  EXPECT_EQ(seen, std::vector<std::string>(ids.rbegin(), ids.rend()));
  // And back again: the same pages, then the jobs that arrived.
  std::vector<std::string> back;
  for (page = jobs.list({.cursor = page.previous, .limit = 10});;
       page = jobs.list({.cursor = page.previous, .limit = 10})) {
    for (auto job = page.jobs.rbegin(); job != page.jobs.rend(); ++job) back.push_back(job->id);
    EXPECT_NE(page.next, "");
    if (page.previous.empty()) break;
  }
  ASSERT_EQ(back.size(), 20u + 6u);
  EXPECT_TRUE(std::equal(ids.begin() + 5, ids.end(), back.begin()));
  for (const char* cursor : {"x", "n", "n_", "n1", "1_2", "n99999999999999999999999_a", "nabc_a", "'; --"})
    EXPECT_EQ(error_of([&] { jobs.list({.cursor = cursor}); }), ErrorKind::bad_input) << cursor;
  EXPECT_EQ(error_of([&] { jobs.list({.limit = 0}); }), ErrorKind::bad_input);
}

TEST_P(JobStoreTest, ListsByKindStatusTimeModel) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  const Job first = jobs.create(request("Ein FUCHS"));
  const Job second = jobs.create({.kind = JobKind::training, .model = "o/t", .version = "v", .source = "web"});
  const Job third = jobs.create(request("a dog"));
  jobs.cancel(third.id);
  const auto ids = [&](const JobQuery& query) {
    std::string text;
    for (const Job& job : jobs.list(query).jobs)
      text += job.id == first.id ? "1" : job.id == second.id ? "2" : job.id == third.id ? "3" : "?";
    return text;
  };
  EXPECT_EQ(ids({}), "321");
  EXPECT_EQ(ids({.kind = JobKind::training}), "2");
  EXPECT_EQ(ids({.status = JobStatus::canceled}), "3");
  EXPECT_EQ(ids({.search = "fuchs"}), "1");
  EXPECT_EQ(ids({.model = "o/t"}), "2");
  EXPECT_EQ(ids({.source = "web"}), "2");
  EXPECT_EQ(ids({.created_after = second.created_at}), "32");
  EXPECT_EQ(ids({.created_before = second.created_at}), "21");
  std::string counts;
  for (const JobCount& c : jobs.counts()) counts += std::string(name(c.kind)) + std::string(name(c.status)) + " ";
  EXPECT_NE(counts.find("predictioncanceled"), std::string::npos);
}

TEST_P(JobStoreTest, RetentionKeepsTheRow) {
  Store store = open();
  JobStore& jobs = *store.jobs;
  const std::string id = jobs.create(request()).id, open_id = jobs.create(request()).id;
  const Claim claim = *jobs.claim("w", {});
  jobs.log(claim, "text");
  jobs.finish(claim, JobStatus::succeeded, "out", {}, {});
  EXPECT_EQ(jobs.forget(JobKind::training, now() + kSecond), 0);
  EXPECT_EQ(jobs.forget(JobKind::prediction, now() - 60 * kSecond), 0);
  EXPECT_EQ(jobs.forget(JobKind::prediction, now() + kSecond), 1);
  EXPECT_EQ(jobs.forget(JobKind::prediction, now() + kSecond), 0);
  const Job job = *jobs.find(id);
  EXPECT_TRUE(job.data_removed);
  EXPECT_EQ(job.status, JobStatus::succeeded);
  EXPECT_EQ(job.input, Json::object());
  EXPECT_TRUE(job.output.is_null() && job.logs.empty());
  EXPECT_FALSE(jobs.find(open_id)->data_removed);
}

}  // namespace
}  // namespace calotype::store
