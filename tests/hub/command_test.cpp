// `calotype pull` and `calotype push` as a user runs them.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/atomic_file.h"
#include "hub/hub_server.h"
#include "support/golden.h"

namespace calotype::hub {
namespace {

namespace fs = std::filesystem;
using test::HubServer;
using test::run_calotype;
using test::TemporaryFolder;

class HubCommands : public ::testing::Test {
 protected:
  HubCommands() {
    ::setenv("HF_ENDPOINT", server_.url().c_str(), 1);
    ::setenv("HF_HOME", (folder_ / "no-token").c_str(), 1);
    ::setenv("CALOTYPE_DATA", folder_.path().c_str(), 1);
    ::unsetenv("HF_TOKEN");
  }
  ~HubCommands() override {
    for (const char* name : {"HF_ENDPOINT", "HF_HOME", "CALOTYPE_DATA", "HF_TOKEN"}) ::unsetenv(name);
  }
  HubServer server_;
  TemporaryFolder folder_;
};

TEST_F(HubCommands, PullSaysWhereAndUnderWhichLicence) {
  const auto result = run_calotype({"pull", "who/model"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(result.out, (folder_ / "models/who/model").string() + "\n");
  EXPECT_NE(result.error.find("licence: flux-1-dev-non-commercial-license (LICENSE.md)"), std::string::npos)
      << result.error;
  EXPECT_TRUE(fs::exists(folder_ / "models/who/model/vae/weights.safetensors"));
}

TEST_F(HubCommands, PullTakesTargetAndPatterns) {
  const auto result = run_calotype(
      {"pull", "who/model", "--target", (folder_ / "here").string(), "--include", "vae/*", "--include", "*.txt"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_TRUE(fs::exists(folder_ / "here/vae/weights.safetensors"));
  EXPECT_TRUE(fs::exists(folder_ / "here/empty.txt"));
  EXPECT_FALSE(fs::exists(folder_ / "here/config.json"));
}

TEST_F(HubCommands, RefusalsAreErrorsOfTheUser) {
  const auto gated = run_calotype({"pull", "who/gated"});
  EXPECT_EQ(gated.exit_code, 2);
  EXPECT_NE(gated.error.find("accept its licence"), std::string::npos) << gated.error;
  EXPECT_EQ(run_calotype({"pull", "who/absent"}).exit_code, 2);
  EXPECT_EQ(run_calotype({"push", folder_.path().string(), "who/new"}).exit_code, 2);
}

TEST_F(HubCommands, PushPrintsTheCommit) {
  ::setenv("HF_TOKEN", "hf_valid", 1);
  base::write_file(folder_ / "lora.safetensors", std::string(5000, 'x'));
  const auto result = run_calotype({"push", (folder_ / "lora.safetensors").string(), "who/new", "--private"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_NE(result.out.find(server_.url("/who/new/commit/")), std::string::npos) << result.out;
  EXPECT_EQ(result.error.find("hf_valid"), std::string::npos);
}

}  // namespace
}  // namespace calotype::hub
