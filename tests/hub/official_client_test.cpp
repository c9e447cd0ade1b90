// The official client and ours through one hub: what one sends, the other gets. Skipped where huggingface_hub is
// missing, unless $CALOTYPE_REQUIRE_HUB is set.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/atomic_file.h"
#include "hub/hub_server.h"
#include "hub/pull.h"
#include "hub/push.h"
#include "support/golden.h"

namespace calotype::hub {
namespace {

namespace fs = std::filesystem;
using test::HubServer;
using test::TemporaryFolder;

class OfficialClient : public ::testing::Test {
 protected:
  void SetUp() override {
    python_ = test::python_with("huggingface_hub");
    if (python_.empty() && std::getenv("CALOTYPE_REQUIRE_HUB")) FAIL() << "no huggingface_hub: run tools/test_clients";
    if (python_.empty()) GTEST_SKIP() << "no huggingface_hub: run tools/test_clients";
    for (int i = 0; i < 200'000; ++i) weights_ += static_cast<char>(i * 13 >> 4);
    fs::create_directories(folder_ / "sent/vae");
    base::write_file(folder_ / "sent/README.md", "---\nlicense: apache-2.0\n---\n");
    base::write_file(folder_ / "sent/empty.txt", "");
    base::write_file(folder_ / "sent/vae/weights.safetensors", weights_);
  }
  void run(const std::string& action, const std::string& first, const std::string& second) {
    const std::string command = fmt::format("{} tests/hub/official_client.py {} {} {} {} >{} 2>&1", python_,
                                            server_.url(), action, first, second, (folder_ / "log").string());
    ASSERT_EQ(std::system(command.c_str()), 0) << base::read_file(folder_ / "log", 1 << 20);
  }
  void expect_same(const std::string& folder) {
    for (const char* name : {"README.md", "empty.txt", "vae/weights.safetensors"})
      EXPECT_EQ(base::read_file(folder_ / folder / name, 1 << 20), base::read_file(folder_ / "sent" / name, 1 << 20))
          << name;
  }

  HubServer server_;
  TemporaryFolder folder_;
  std::string python_, weights_;
};

TEST_F(OfficialClient, DownloadsWhatWePush) {
  push(folder_ / "sent", "who/ours", {.access = {.endpoint = server_.url(), .token = "hf_valid"}});
  run("download", "who/ours", (folder_ / "got").string());
  expect_same("got");
}

TEST_F(OfficialClient, UploadsWhatWePull) {
  run("upload", (folder_ / "sent").string(), "who/theirs");
  pull("who/theirs", {.target = folder_ / "got", .access = {.endpoint = server_.url(), .token = "hf_valid"}});
  expect_same("got");
}

TEST_F(OfficialClient, UploadsInParts) {
  server_.control({{"chunk", 60'000}});
  run("upload", (folder_ / "sent").string(), "who/theirs");
  EXPECT_EQ(server_.log("/complete").size(), 1u);
  pull("who/theirs", {.target = folder_ / "got", .access = {.endpoint = server_.url(), .token = "hf_valid"}});
  expect_same("got");
}

}  // namespace
}  // namespace calotype::hub
