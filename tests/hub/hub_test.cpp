// pull and push against the stand-in hub; tests/hub/official_client_test.cpp shows that it is like the real one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/sha256.h"
#include "hub/hub_server.h"
#include "hub/pull.h"
#include "hub/push.h"
#include "support/golden.h"

namespace calotype::hub {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;
using test::HubServer;
using test::TemporaryFolder;

std::string weights_of_the_sample() {  // as hub_server.py, sample_repos()
  std::string bytes(300'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>((i * 7 + (i >> 8)) & 255);
  return bytes;
}

class Hub : public ::testing::Test {
 protected:
  HubAccess access(const std::string& token = "") const { return {.endpoint = server_.url(), .token = token}; }
  PullResult fetch(const std::string& repo, PullOptions options = {}) {
    options.target = folder_ / "model";
    if (options.access.endpoint != server_.url()) options.access = access();
    return pull(repo, std::move(options));
  }
  void expect_refused(ErrorKind kind, const std::vector<std::string>& words, const std::function<void()>& work) {
    try {
      work();
      ADD_FAILURE() << "no error, expected one with " << words.front();
    } catch (const base::Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(base::name(error.kind()), base::name(kind)) << message;
      for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
      EXPECT_EQ(message.find("hf_valid"), std::string::npos) << message;
      EXPECT_EQ(message.find("signature="), std::string::npos) << message;
    }
  }
  std::string content(const std::string& name) const { return base::read_file(folder_ / ("model/" + name), 1 << 20); }

  HubServer server_;
  TemporaryFolder folder_;
};

TEST_F(Hub, PullFetchesARepository) {
  std::string licence;
  int64_t last = 0, total = 0;
  const PullResult result =
      fetch("who/model", {.on_plan = [&](const PullPlan& plan) { licence = plan.licence.title(); },
                          .progress =
                              [&](const base::ProgressEvent& event) {
                                EXPECT_GE(event.done, last);
                                last = event.done;
                                total = event.total;
                              }});
  EXPECT_EQ(result.fetched, 4);
  EXPECT_EQ(content("vae/weights.safetensors"), weights_of_the_sample());
  EXPECT_EQ(content("config.json"), "{\"a\": 1}\n");
  EXPECT_EQ(content("empty.txt"), "");
  EXPECT_EQ(licence, "flux-1-dev-non-commercial-license");
  EXPECT_EQ(last, total);
  const json record = json::parse(content("calotype-source.json"));
  EXPECT_EQ(record["source"], server_.url("/who/model"));
  EXPECT_EQ(record["license_name"], "flux-1-dev-non-commercial-license");
  EXPECT_EQ(record["license_link"], "LICENSE.md");
  EXPECT_EQ(record["commit"].get<std::string>().size(), 40u);
  EXPECT_EQ(record["pulled_at"].get<std::string>().size(), 20u);
  EXPECT_EQ(record["files"]["vae/weights.safetensors"]["sha256"], base::sha256_hex(weights_of_the_sample()));
}

TEST_F(Hub, PullKeepsWhatIsComplete) {
  fetch("who/model");
  EXPECT_EQ(fetch("who/model").kept, 1);
  EXPECT_EQ(server_.log("/cdn/").size(), 1u);
  base::write_file(folder_ / "model/vae/weights.safetensors", std::string(300'000, 'x'));  // damaged, same size
  EXPECT_EQ(fetch("who/model").kept, 0);
  EXPECT_EQ(content("vae/weights.safetensors"), weights_of_the_sample());
}

TEST_F(Hub, PullGoesOnAfterInterruptions) {
  server_.control({{"cuts", 1}, {"cut_after", 100'000}});
  fetch("who/model");
  EXPECT_EQ(content("vae/weights.safetensors"), weights_of_the_sample());
  EXPECT_EQ(server_.log("/cdn/").back()["headers"]["range"], "bytes=100000-");
  fs::remove_all(folder_ / "model");
  fs::create_directories(folder_ / "model/vae");
  base::write_file(folder_ / "model/vae/weights.safetensors.part", weights_of_the_sample().substr(0, 200'000));
  fetch("who/model");
  EXPECT_EQ(content("vae/weights.safetensors"), weights_of_the_sample());
  EXPECT_EQ(server_.log("/cdn/").back()["headers"]["range"], "bytes=200000-");
}

TEST_F(Hub, PullRefusesDamagedFiles) {
  server_.control({{"corrupt", true}});
  expect_refused(ErrorKind::corrupt_file, {"weights.safetensors", base::sha256_hex(weights_of_the_sample())},
                 [&] { fetch("who/model"); });
  EXPECT_FALSE(fs::exists(folder_ / "model/vae/weights.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "model/calotype-source.json"));
}

TEST_F(Hub, SmallFilesAreCheckedAgainstGitsName) {
  const json sibling = {{"rfilename", "config.json"}, {"size", 9}, {"blobId", std::string(40, 'a')}};
  server_.control({{"siblings", {sibling}}});
  expect_refused(ErrorKind::corrupt_file, {"config.json"}, [&] { fetch("who/model"); });
}

TEST_F(Hub, TheTokenStaysWithTheHub) {
  fetch("who/private", {.access = access("hf_valid")});
  EXPECT_EQ(content("vae/weights.safetensors"), weights_of_the_sample());
  for (const json& entry : server_.log("/who/private")) EXPECT_EQ(entry["headers"]["authorization"], "Bearer hf_valid");
  ASSERT_EQ(server_.log("/cdn/").size(), 1u);
  EXPECT_FALSE(server_.log("/cdn/")[0]["headers"].contains("authorization"));
}

TEST_F(Hub, SaysWhatToDoWithoutAccess) {
  expect_refused(ErrorKind::bad_input, {"gated", "accept its licence at " + server_.url("/who/gated"), "HF_TOKEN"},
                 [&] { fetch("who/gated"); });
  expect_refused(ErrorKind::bad_input, {"gated", "a token was given"},
                 [&] { fetch("who/gated", {.access = access("hf_valid")}); });
  expect_refused(ErrorKind::bad_input, {"who/private", "no token was given", "HF_TOKEN"},
                 [&] { fetch("who/private"); });
  expect_refused(ErrorKind::bad_input, {"who/model", "Invalid credentials"},
                 [&] { fetch("who/model", {.access = access("hf_wrong")}); });
  expect_refused(ErrorKind::not_found, {"who/absent", "Repository not found"},
                 [&] { fetch("who/absent", {.access = access("hf_valid")}); });
  expect_refused(ErrorKind::not_found, {"Invalid rev id: other"}, [&] { fetch("who/model", {.revision = "other"}); });
  expect_refused(ErrorKind::bad_input, {"OWNER/NAME"}, [&] { fetch("../model"); });
  expect_refused(ErrorKind::bad_input, {"token"}, [&] { fetch("who/model", {.access = access("hf\r\nX: y")}); });
  expect_refused(ErrorKind::not_found, {"none of its 4 files"}, [&] { fetch("who/model", {.include = {"*.xyz"}}); });
}

TEST_F(Hub, HostileListingsWriteNothing) {
  for (const char* name : {"../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil", ".git/hooks/x", "a\nb", "", "a//b"}) {
    server_.control({{"siblings", {{{"rfilename", name}, {"size", 1}}}}});
    expect_refused(ErrorKind::corrupt_file, {"not accepted"}, [&] { fetch("who/model"); });
  }
  json many = json::array();
  for (int i = 0; i < 10'001; ++i) many.push_back({{"rfilename", std::to_string(i)}});
  const json same = {{"rfilename", "a"}, {"size", 1}};
  const json huge = {{"rfilename", "a"}, {"size", 1ull << 60}};
  const json odd = {{"rfilename", "a"}, {"lfs", {{"sha256", "../../x"}, {"size", 1}}}};
  for (const json& siblings :
       {many, json{same, same}, json{huge}, json{odd}, json("text"), json{1, 2}, json(nullptr)}) {
    server_.control({{"siblings", siblings.is_null() ? json(17) : siblings}});
    expect_refused(ErrorKind::corrupt_file, {"who/model"}, [&] { fetch("who/model"); });
  }
  EXPECT_FALSE(fs::exists(folder_ / "model"));
  EXPECT_FALSE(fs::exists(folder_ / "evil"));
}

TEST_F(Hub, ChoosesFiles) {
  EXPECT_EQ(fetch("who/model", {.include = {"vae/"}}).fetched, 2);  // and the card
  EXPECT_FALSE(fs::exists(folder_ / "model/config.json"));
  json siblings = json::array();
  for (const char* name : {"README.md", "model_index.json", "flux1-dev.safetensors", "pytorch_model.bin",
                           "vae/weights.safetensors", ".gitattributes"})
    siblings.push_back({{"rfilename", name}, {"size", 2 << 20}});
  siblings[0].erase("size");
  server_.control({{"siblings", siblings}});
  std::vector<std::string> chosen, left_out;
  const auto look = [&](const PullPlan& plan) {
    for (const RepoFile& file : plan.files) chosen.push_back(file.path);
    left_out = plan.left_out;
    base::fail(ErrorKind::canceled, "seen enough");
  };
  EXPECT_THROW(fetch("who/model", {.on_plan = look}), base::Error);
  EXPECT_EQ(chosen, (std::vector<std::string>{"README.md", "model_index.json", "vae/weights.safetensors"}));
  ASSERT_EQ(left_out.size(), 3u);
  EXPECT_NE(left_out[0].find("flux1-dev.safetensors"), std::string::npos);
  EXPECT_NE(left_out[1].find("pytorch_model.bin"), std::string::npos);
}

// Mirrors that list names only: size and checksum come with the file's own headers.
TEST_F(Hub, AsksForWhatTheListingLacks) {
  server_.control({{"siblings", {{{"rfilename", "vae/weights.safetensors"}}, {{"rfilename", "config.json"}}}}});
  const PullResult result = fetch("who/model");
  EXPECT_EQ(content("vae/weights.safetensors"), weights_of_the_sample());
  EXPECT_EQ(result.plan.bytes, 300'009u);
  EXPECT_EQ(result.plan.files[0].sha256, base::sha256_hex(weights_of_the_sample()));
}

TEST_F(Hub, FindsWhatWasPulled) {
  ::setenv("CALOTYPE_DATA", (folder_ / "data").c_str(), 1);
  EXPECT_FALSE(find_pulled_model("who/model"));
  EXPECT_FALSE(find_pulled_model("../etc"));
  const PullResult result = pull("who/model", {.access = access()});
  EXPECT_EQ(result.folder, folder_ / "data/models/who/model");
  EXPECT_EQ(find_pulled_model("who/model"), result.folder);
  ::unsetenv("CALOTYPE_DATA");
}

class Push : public Hub {
 protected:
  // Not on the hub before.
  static std::string new_weights() { return weights_of_the_sample() + "!"; }
  Push() {
    fs::create_directories(folder_ / "out/sub");
    base::write_file(folder_ / "out/README.md", "---\nlicense: apache-2.0\n---\n# é\n");
    base::write_file(folder_ / "out/empty.bin", "");
    base::write_file(folder_ / "out/lora.safetensors", new_weights());
    base::write_file(folder_ / "out/sub/copy.safetensors", new_weights());
    base::write_file(folder_ / "out/lora.safetensors.part", "unfinished");
    base::write_file(folder_ / "out/.hidden", "x");
    base::write_file(folder_ / "out/notes.ignored", "x");
  }
  PushResult send_all(const std::string& repo = "who/new") {
    return push(folder_ / "out", repo, {.access = access("hf_valid")});
  }
  void expect_on_hub() {
    fetch("who/new", {.include = {"*"}, .access = access("hf_valid")});
    for (const char* name : {"README.md", "empty.bin", "lora.safetensors", "sub/copy.safetensors"})
      EXPECT_EQ(content(name), base::read_file(folder_ / "out" / name, 1 << 20)) << name;
    for (const char* name : {".hidden", "lora.safetensors.part", "notes.ignored"})
      EXPECT_FALSE(fs::exists(folder_ / "model" / name)) << name;
  }
};

TEST_F(Push, MakesARepositoryAndFillsIt) {
  const PushResult result = send_all();
  EXPECT_TRUE(result.created);
  EXPECT_EQ(result.page, server_.url("/who/new"));
  EXPECT_NE(result.commit.find("/who/new/commit/"), std::string::npos);
  expect_on_hub();
  // Equal files are sent once; stores see no token, only their signature.
  std::vector<json> stored;
  for (const json& entry : server_.log("/lfs/"))
    if (entry["method"] == "PUT") stored.push_back(entry);
  ASSERT_EQ(stored.size(), 1u);
  EXPECT_FALSE(stored[0]["headers"].contains("authorization"));
}

TEST_F(Push, SendsNothingTwice) {
  send_all();
  const size_t before = server_.log("signature=").size();
  const PushResult again = send_all();
  EXPECT_FALSE(again.created);
  EXPECT_EQ(server_.log("signature=").size(), before);
}

TEST_F(Push, SendsLargeFilesInParts) {
  server_.control({{"chunk", 70'000}});
  send_all();
  expect_on_hub();
  EXPECT_EQ(server_.log("/complete").size(), 1u);
}

TEST_F(Push, TriesAgainWhenTheStoreIsBusy) {
  server_.control({{"busy", 2}});
  send_all();
  expect_on_hub();
}

TEST_F(Push, MakesPrivateRepositories) {
  push(folder_ / "out/lora.safetensors", "who/new",
       {.visibility = HubClient::Visibility::hidden, .access = access("hf_valid")});
  expect_refused(ErrorKind::bad_input, {"no token was given"}, [&] { fetch("who/new"); });
  fetch("who/new", {.access = access("hf_valid")});
  EXPECT_EQ(content("lora.safetensors"), new_weights());
}

TEST_F(Push, SaysWhatIsMissing) {
  expect_refused(ErrorKind::bad_input, {"HF_TOKEN"}, [&] { push(folder_ / "out", "who/new", {.access = access()}); });
  expect_refused(ErrorKind::bad_input, {"who/new"},
                 [&] { push(folder_ / "out", "who/new", {.access = access("hf_wrong")}); });
  expect_refused(ErrorKind::not_found, {"absent"},
                 [&] { push(folder_ / "absent", "who/new", {.access = access("hf_valid")}); });
  fs::create_directories(folder_ / "nothing");
  expect_refused(ErrorKind::bad_input, {"no files"},
                 [&] { push(folder_ / "nothing", "who/new", {.access = access("hf_valid")}); });
  expect_refused(ErrorKind::bad_input, {"OWNER/NAME"},
                 [&] { push(folder_ / "out", "new", {.access = access("hf_valid")}); });
}

}  // namespace
}  // namespace calotype::hub
