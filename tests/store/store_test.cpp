// Everything beside jobs and files: models, settings, tokens, webhook deliveries, workers, and the values in rows.
#include "store/store.h"

#include <atomic>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>

#include "base/base64.h"
#include "store/ids.h"
#include "support/stores.h"

namespace calotype::store {
namespace {

using base::ErrorKind;
using test::error_of;

class StoreTest : public test::OnEveryDatabase {};
CALOTYPE_ON_EVERY_DATABASE(StoreTest);

std::string version_id(int number) { return std::string(62, '0') + std::to_string(10 + number); }

TEST_P(StoreTest, ModelsComeAndGo) {
  Store store = open();
  ModelRegistry& models = *store.models;
  const Model made = models.create(
      {.owner = "me", .name = "flux-mine", .visibility = "public", .hardware = "gpu-t4", .description = "My \"fox\""});
  EXPECT_EQ(made.description, "My \"fox\"");
  EXPECT_EQ(made.latest_version, "");
  EXPECT_FALSE(made.version_created_at);
  EXPECT_EQ(error_of([&] { models.create({.owner = "me", .name = "flux-mine"}); }), ErrorKind::conflict);
  const Model changed = models.update("me", "flux-mine", {.description = "new", .readme = "# Title"});
  EXPECT_EQ(changed.readme, "# Title");
  EXPECT_EQ(changed.hardware, "gpu-t4");
  EXPECT_EQ(error_of([&] { models.update("me", "none", {}); }), ErrorKind::not_found);
  EXPECT_EQ(error_of([&] { models.update("me", "flux-mine", {.visibility = "secret"}); }), ErrorKind::bad_input);
  store.jobs->create({.model = "me/flux-mine", .version = "v"});
  EXPECT_EQ(models.find("me", "flux-mine")->run_count, 1);
  models.add_version({.id = version_id(1), .owner = "me", .name = "flux-mine"});
  EXPECT_EQ(error_of([&] { models.remove("me", "flux-mine"); }), ErrorKind::conflict);
  models.remove_version("me", "flux-mine", version_id(1));
  models.remove("me", "flux-mine");
  EXPECT_FALSE(models.find("me", "flux-mine"));
  EXPECT_EQ(error_of([&] { models.remove("me", "flux-mine"); }), ErrorKind::not_found);
}

TEST_P(StoreTest, NamesAreChecked) {
  Store store = open();
  for (const std::string& name : std::vector<std::string>{"", ".", "..", "a/b", "A", "a b", "ä", "-a", "a.", "a\n",
                                                          std::string(65, 'a'), "a:b", "a'b", "~"})
    EXPECT_EQ(error_of([&] { store.models->create({.owner = "me", .name = name}); }), ErrorKind::bad_input) << name;
  for (const std::string& name : std::vector<std::string>{"a", "flux.1-dev_2", std::string(64, 'z')})
    EXPECT_EQ(store.models->create({.owner = "me", .name = name}).name, name);
}

TEST_P(StoreTest, VersionsAreListedNewestFirst) {
  Store store = open();
  ModelRegistry& models = *store.models;
  EXPECT_EQ(error_of([&] { models.add_version({.id = version_id(1), .owner = "me", .name = "m"}); }),
            ErrorKind::not_found);
  models.create({.owner = "me", .name = "m"});
  models.create({.owner = "me", .name = "other"});
  EXPECT_EQ(error_of([&] { models.add_version({.id = "abc", .owner = "me", .name = "m"}); }), ErrorKind::bad_input);
  for (int i = 0; i < 5; ++i)
    models.add_version(
        {.id = version_id(i), .owner = "me", .name = "m", .created_at = 100 + i, .about = {{"number", i}}});
  const Version again = models.add_version({.id = version_id(0), .owner = "me", .name = "m", .about = {{"number", 9}}});
  EXPECT_EQ(again.about["number"], 0);
  EXPECT_EQ(models.find("me", "m")->latest_version, version_id(4));
  const auto page = models.versions("me", "m", {.limit = 3});
  EXPECT_EQ(page.items.front().id, version_id(4));
  EXPECT_EQ(models.versions("me", "m", {.cursor = page.next}).items.back().id, version_id(0));
  models.remove_version("me", "m", version_id(4));
  EXPECT_EQ(models.find("me", "m")->latest_version, version_id(3));
  EXPECT_EQ(*models.find("me", "m")->version_created_at, 103);
  EXPECT_EQ(error_of([&] { models.remove_version("me", "other", version_id(3)); }), ErrorKind::not_found);
  EXPECT_EQ(models.find_version(version_id(2))->name, "m");
  EXPECT_FALSE(models.find_version("me", "other", version_id(2)));
}

TEST_P(StoreTest, ModelsAreSortedAndSearched) {
  Store store = open();
  ModelRegistry& models = *store.models;
  for (const char* name : {"fox", "dog", "cat"})
    models.create({.owner = "me", .name = name, .description = std::string("draws a ") + name + " 100%"});
  models.add_version({.id = version_id(1), .owner = "me", .name = "dog"});
  const auto names = [&](const ModelQuery& query) {
    std::string text;
    for (const Model& model : models.list(query).items) text += model.name + " ";
    return text;
  };
  EXPECT_EQ(names({}), "cat dog fox ");
  ModelQuery query;
  query.ascending = true;
  EXPECT_EQ(names(query), "fox dog cat ");
  query = {};
  query.order = ModelOrder::latest_version_created_at;
  EXPECT_TRUE(names(query).starts_with("dog "));
  query = {};
  query.search = "FOX draws";
  EXPECT_EQ(names(query), "fox ");
  query.search = "100%";
  EXPECT_EQ(names(query), "cat dog fox ");
  query.search = "1_0";
  EXPECT_EQ(names(query), "");
  query = {};
  query.limit = 2;
  const auto page = models.list(query);
  query.cursor = page.next;
  EXPECT_EQ(names(query), "fox ");
}

TEST_P(StoreTest, DeploymentsCountReleases) {
  Store store = open();
  ModelRegistry& models = *store.models;
  models.create_deployment({.owner = "me", .name = "prod", .model = "me/m", .version = version_id(1)});
  EXPECT_EQ(error_of([&] { models.create_deployment({.owner = "me", .name = "prod"}); }), ErrorKind::conflict);
  const Deployment changed = models.update_deployment("me", "prod", {.version = version_id(2), .max_instances = 3});
  EXPECT_EQ(changed.number, 2);
  EXPECT_EQ(changed.version, version_id(2));
  EXPECT_EQ(models.find_deployment("me", "prod")->max_instances, 3);
  EXPECT_EQ(error_of([&] { models.update_deployment("me", "prod", {.min_instances = 4}); }), ErrorKind::bad_input);
  for (const char* name : {"b", "a", "c"}) models.create_deployment({.owner = "me", .name = name});
  const auto page = models.deployments({.limit = 2});
  EXPECT_EQ(page.items.at(1).name, "b");
  EXPECT_EQ(models.deployments({.cursor = page.next, .limit = 2}).items.at(1).name, "prod");
  models.remove_deployment("me", "prod");
  EXPECT_EQ(error_of([&] { models.remove_deployment("me", "prod"); }), ErrorKind::not_found);
}

TEST_P(StoreTest, SettingsAreTheSameForAll) {
  std::string secrets[4];
  std::vector<std::thread> threads;
  for (std::string& secret : secrets) threads.emplace_back([&] { secret = open().settings->webhook_secret(); });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& secret : secrets) EXPECT_EQ(secret, secrets[0]);
  EXPECT_TRUE(secrets[0].starts_with("whsec_"));
  EXPECT_EQ(base::base64_decoded(secrets[0].substr(6))->size(), 24u);
  Store store = open();
  EXPECT_EQ(store.settings->signing_key().size(), 32u);
  EXPECT_EQ(store.settings->signing_key(), open().settings->signing_key());
  EXPECT_EQ(store.settings->get("webhook_secret")->find(secrets[0].substr(6)), std::string::npos);  // encrypted
  EXPECT_EQ(store.settings->username(), "me");
  store.settings->set_username("ada");
  EXPECT_EQ(open().settings->username(), "ada");
  EXPECT_EQ(error_of([&] { store.settings->set_username("a/b"); }), ErrorKind::bad_input);
}

TEST_P(StoreTest, TokensAreKeptAsHashes) {
  Store store = open();
  Tokens& tokens = *store.tokens;
  EXPECT_FALSE(tokens.any());
  const NewToken made = tokens.create("laptop"), other = tokens.create("phone");
  EXPECT_GE(made.plain.size(), 30u);
  EXPECT_NE(made.plain, other.plain);
  EXPECT_EQ(tokens.check(made.plain)->id, made.token.id);
  EXPECT_FALSE(tokens.check("") || tokens.check("calo_") || tokens.check(made.plain + "x") ||
               tokens.check(made.token.id));
  EXPECT_FALSE(tokens.check(std::string(1'000'000, 'x')));
  EXPECT_EQ(tokens.list().size(), 2u);
  EXPECT_TRUE(tokens.list()[0].last_used_at);
  EXPECT_FALSE(tokens.list()[1].last_used_at);
  Connection connection = store.database->session();
  Poco::Data::Session& session = connection;
  std::string hash;
  session << "SELECT hash FROM tokens WHERE name = 'laptop'", Poco::Data::Keywords::into(hash),
      Poco::Data::Keywords::now;
  EXPECT_EQ(hash.size(), 64u);
  EXPECT_EQ(hash.find(made.plain.substr(5)), std::string::npos);
  EXPECT_TRUE(tokens.revoke(made.token.id));
  EXPECT_FALSE(tokens.revoke(made.token.id));
  EXPECT_FALSE(tokens.check(made.plain));
  EXPECT_FALSE(open().tokens->check(made.plain));
  EXPECT_TRUE(open().tokens->check(other.plain));
}

class WebhookTest : public StoreTest {
 protected:
  std::string states(Store& store, const std::string& job) {
    std::string text;
    for (const Delivery& d : store.webhooks->of_job(job)) text += d.event + ":" + d.state + " ";
    return text;
  }
};
CALOTYPE_ON_EVERY_DATABASE(WebhookTest);

TEST_P(WebhookTest, FollowTheJob) {
  Store store = open();
  const std::string id =
      store.jobs
          ->create({.model = "o/m",
                    .version = "v",
                    .webhook = Webhook{.url = "http://h/w", .events = {"start", "output", "logs", "completed"}}})
          .id;
  EXPECT_FALSE(store.webhooks->next_due());
  const Claim claim = *store.jobs->claim("w", {});
  store.jobs->start(claim);
  for (int i = 0; i < 5; ++i) store.jobs->log(claim, "x");
  store.jobs->output(claim, Json::array({"a"}));
  EXPECT_EQ(states(store, id), "start:waiting logs:waiting output:waiting ");
  // A job's deliveries go out one after the other.
  const Delivery start = store.webhooks->take(now(), 8).at(0);
  EXPECT_EQ(start.event, "start");
  EXPECT_EQ(start.url, "http://h/w");
  EXPECT_TRUE(store.webhooks->take(now(), 8).empty());
  store.webhooks->done(start, 200);
  const Time sent = now();
  const Delivery logs = store.webhooks->take(sent, 8).at(0);
  EXPECT_EQ(logs.event, "logs");
  store.jobs->log(claim, "while it is under way");
  store.webhooks->done(logs, 200);
  // The next one of its kind keeps its distance.
  const auto deliveries = store.webhooks->of_job(id);
  EXPECT_EQ(deliveries.back().event, "logs");
  EXPECT_EQ(deliveries.back().state, "waiting");
  EXPECT_GE(deliveries.back().next_at, sent + kWebhookSpacing);
  store.jobs->finish(claim, JobStatus::succeeded, Json::array({"a", "b"}), {}, {});
  EXPECT_EQ(states(store, id), "start:done logs:done completed:waiting ");
  const Delivery completed = store.webhooks->take(now(), 8).at(0);
  EXPECT_EQ(completed.event, "completed");
  store.webhooks->again(completed, now() + 10 * kSecond, 500, "server error");
  EXPECT_TRUE(store.webhooks->take(now(), 8).empty());
  const Delivery second = store.webhooks->take(now() + 11 * kSecond, 8).at(0);
  EXPECT_EQ(second.message_id, completed.message_id);
  EXPECT_EQ(second.attempts, 1);
  EXPECT_EQ(second.last_status, 500);
  EXPECT_EQ(second.last_error, "server error");
  // Whoever took it has died: it is due again after the lease.
  EXPECT_TRUE(store.webhooks->take(now() + 12 * kSecond, 8).empty());
  const Delivery third = store.webhooks->take(now() + 12 * kSecond + kDeliveryLease, 8).at(0);
  store.webhooks->give_up(third, 404, "not found");
  EXPECT_FALSE(store.webhooks->next_due());
  EXPECT_EQ(store.webhooks->forget(now() + kSecond), 3);
}

TEST_P(WebhookTest, OnlyWhatWasAskedFor) {
  Store store = open();
  const auto make = [&](std::optional<Webhook> webhook) {
    return store.jobs->create({.model = "o/m", .version = "v", .webhook = webhook}).id;
  };
  const std::string none = make({}), completed = make(Webhook{.url = "http://h", .events = {"completed"}}),
                    canceled = make(Webhook{.url = "http://h", .events = {"completed"}});
  store.jobs->cancel(canceled);
  while (const auto claim = store.jobs->claim("w", {})) {
    store.jobs->start(*claim);
    store.jobs->log(*claim, "x");
    store.jobs->finish(*claim, JobStatus::failed, {}, "broken", {});
  }
  EXPECT_EQ(states(store, none), "");
  EXPECT_EQ(states(store, completed), "completed:waiting ");
  EXPECT_EQ(states(store, canceled), "completed:waiting ");
}

TEST_P(WebhookTest, IsTakenOnce) {
  Store store = open();
  for (int i = 0; i < 60; ++i)
    store.jobs->cancel(
        store.jobs
            ->create({.model = "o/m", .version = "v", .webhook = Webhook{.url = "http://h", .events = {"completed"}}})
            .id);
  std::mutex mutex;
  std::multiset<std::string> taken;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      for (;;) {
        const auto deliveries = store.webhooks->take(now(), 4);
        if (deliveries.empty()) break;
        const std::lock_guard lock(mutex);
        for (const Delivery& delivery : deliveries) taken.insert(delivery.job);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken.size(), 60u);
  EXPECT_EQ(std::set(taken.begin(), taken.end()).size(), 60u);
}

TEST_P(StoreTest, WorkersSayThatTheyLive) {
  Store store = open();
  const Time before = now();
  store.workers->heartbeat({.id = "w1", .host = "h", .pid = 17, .device = "cuda:0"});
  store.workers->heartbeat({.id = "w2", .host = "h", .pid = 18, .device = "cpu"});
  store.workers->heartbeat({.id = "w1", .host = "h", .pid = 17, .device = "cuda:0", .model = "o/m", .job = "j"});
  const auto all = store.workers->list(before);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].job, "j");
  EXPECT_GE(all[0].heartbeat_at, all[0].started_at);
  store.workers->remove("w1");
  EXPECT_EQ(store.workers->list(0).size(), 1u);
  store.workers->forget(now() + kSecond);
  EXPECT_TRUE(store.workers->list(0).empty());
}

TEST_P(StoreTest, TablesOfANewerProgramAreRefused) {
  {
    Store store = open();
    Connection connection = store.database->session();
    Poco::Data::Session& session = connection;
    session << "UPDATE schema_version SET version = 1000", Poco::Data::Keywords::now;
  }
  EXPECT_EQ(error_of([&] { open(); }), ErrorKind::conflict);
}

// The first tables had no dialects of webhooks.
TEST_P(StoreTest, TablesOfAnOlderProgramAreExtended) {
  {
    Store store = open();
    Connection connection = store.database->session();
    Poco::Data::Session& session = connection;
    for (const char* statement :
         {"ALTER TABLE jobs DROP COLUMN webhook_dialect", "ALTER TABLE jobs DROP COLUMN webhook_secret",
          "UPDATE schema_version SET version = 1"})
      session << statement, Poco::Data::Keywords::now;
  }
  Store store = open();
  const Webhook webhook{.url = "http://h", .events = {"completed"}, .dialect = "bfl", .secret = "hush"};
  const Job job = store.jobs->create({.model = "o/m", .version = "v", .webhook = webhook});
  EXPECT_EQ(store.jobs->find(job.id)->webhook->dialect, "bfl");
  EXPECT_EQ(store.jobs->find(job.id)->webhook->secret, "");  // kept apart
  EXPECT_EQ(store.jobs->webhook_secret(job.id), "hush");
  EXPECT_EQ(store.jobs->webhook_secret("nobody"), "");
}

TEST_P(StoreTest, IsOpenedByManyAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> opened = 0;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      open();
      ++opened;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(opened, 8);
}

TEST_P(StoreTest, AFailedTransactionChangesNothing) {
  Store store = open();
  EXPECT_EQ(error_of([&] {
              store.database->transaction([&](Poco::Data::Session& session) {
                session << "INSERT INTO settings (name, value) VALUES ('a', 'b')", Poco::Data::Keywords::now;
                base::fail(ErrorKind::bad_input, "no");
              });
            }),
            ErrorKind::bad_input);
  EXPECT_FALSE(store.settings->get("a"));
  store.settings->set("a", "c");
  EXPECT_EQ(store.settings->get("a"), "c");
}

TEST(Database, SaysWhatIsWrongWithUrls) {
  for (const char* url : {"", "mysql://x", "file", "sqlite:"})
    EXPECT_EQ(error_of([&] { Database::open(url); }), ErrorKind::bad_input) << url;
  EXPECT_EQ(error_of([&] { Database::open("sqlite:/proc/none/x.db"); }).has_value(), true);
  EXPECT_EQ(error_of([&] { Database::open("postgresql://u:hidden@127.0.0.1:1/x"); }), ErrorKind::not_found);
  try {
    Database::open("postgresql://u:hidden@127.0.0.1:1/x");
  } catch (const base::Error& e) {
    EXPECT_EQ(std::string(e.what()).find("hidden"), std::string::npos) << e.what();
  }
}

// Values: GNU date, for example `date -u -d 2026-01-05T10:00:00Z +%s`.
TEST(Time, IsRfc3339) {
  EXPECT_EQ(rfc3339(1767607200123456), "2026-01-05T10:00:00.123456Z");
  EXPECT_EQ(rfc3339(0), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(rfc3339(-1), "1969-12-31T23:59:59.999999Z");
  EXPECT_EQ(rfc3339(951782400 * kSecond), "2000-02-29T00:00:00.000000Z");
  EXPECT_EQ(parse_rfc3339("2026-01-05T10:00:00Z"), 1767607200 * kSecond);
  EXPECT_EQ(parse_rfc3339("2026-01-05T11:00:00.5+01:00"), 1767607200 * kSecond + kSecond / 2);
  EXPECT_EQ(parse_rfc3339("2026-01-05 10:00:00 00:00"), 1767607200 * kSecond);  // "+" that became a space
  EXPECT_EQ(parse_rfc3339("2026-01-05T04:30:00.123456789-05:30"), 1767607200 * kSecond + 123456);
  EXPECT_EQ(parse_rfc3339("2026-01-05"), 1767571200 * kSecond);
  for (const char* text : {"", "yesterday", "2026-13-01", "2026-02-30", "2026-01-05T25:00:00Z", "2026-01-05T10:00:00Zx",
                           "2026-01-05T10:00:00.Z", "2026-01-05T", "-026-01-05", "2026-1-5"})
    EXPECT_FALSE(parse_rfc3339(text)) << text;
}

TEST(SecretBox, OpensOnlyWhatIsWhole) {
  const SecretBox box(std::string(32, 'k'));
  const std::string sealed = box.seal("secret", "here");
  EXPECT_EQ(box.unseal(sealed, "here"), "secret");
  EXPECT_NE(box.seal("secret", "here"), sealed);  // a nonce is never used twice
  EXPECT_EQ(error_of([&] { box.unseal(sealed, "there"); }), ErrorKind::corrupt_file);
  EXPECT_EQ(error_of([&] { SecretBox(std::string(32, 'x')).unseal(sealed, "here"); }), ErrorKind::corrupt_file);
  for (size_t i = 0; i < sealed.size(); ++i) {
    std::string damaged = sealed;
    damaged[i] = damaged[i] == 'A' ? 'B' : 'A';
    EXPECT_EQ(error_of([&] { box.unseal(damaged, "here"); }), ErrorKind::corrupt_file) << i;
  }
  EXPECT_EQ(error_of([&] { box.unseal("", ""); }), ErrorKind::corrupt_file);
}

// Made with Python: cryptography's AESGCM(b"k" * 32).encrypt(b"n" * 12, b"hf_token", b"job/1/hf_token"), the tag moved
// to the front, after the nonce.
TEST(SecretBox, IsAesGcm) {
  EXPECT_EQ(
      SecretBox(std::string(32, 'k')).unseal("bm5ubm5ubm5ubm5u4t05dMriZqpgGZm0kBESE/BduMR+3+C3", "job/1/hf_token"),
      "hf_token");
}

TEST(SecretBox, KeyFileIsMadeOnce) {
  test::TemporaryFolder folder;
  std::string sealed[4];
  std::vector<std::thread> threads;
  for (std::string& text : sealed)
    threads.emplace_back([&] { text = SecretBox::open(folder / "data").seal("s", "c"); });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : sealed) EXPECT_EQ(SecretBox::open(folder / "data").unseal(text, "c"), "s");
  std::ofstream(folder / "data/secret.key") << "damaged";
  EXPECT_EQ(error_of([&] { SecretBox::open(folder / "data"); }), ErrorKind::bad_input);
}

}  // namespace
}  // namespace calotype::store
