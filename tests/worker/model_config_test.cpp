#include "worker/model_config.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/atomic_file.h"
#include "base/error.h"
#include "support/golden.h"

namespace calotype::worker {
namespace {

namespace fs = std::filesystem;
constexpr const char* kDev = "black-forest-labs/flux-dev";

class ModelConfigTest : public testing::Test {
 protected:
  ModelConfigTest() {
    for (const char* name : {"FLUX.1-dev", "FLUX.1-schnell", "other", "vae"}) fs::create_directories(folder_ / name);
  }
  ModelConfig read(const std::string& json, const std::vector<std::string>& given = {}) {
    if (!json.empty()) base::write_file(folder_ / "models.json", json);
    ModelConfig config = read_model_config({.data = folder_.path(), .file = {}, .given = given});
    config.in_the_box.clear();  // whether it is there is not the matter of these tests
    return config;
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  static std::string shown(const ModelConfig& config, const std::string& name, const std::string& backend) {
    const Backing backing = weights_behind(config, name, backend);
    return backing.weights.shown_name() + (backing.stand_in ? " stands in" : "");
  }
  test::TemporaryFolder folder_;
};

TEST_F(ModelConfigTest, TheNearestNameWins) {
  const ModelConfig config = read(R"({"models": {"default": "other", "dev": {"model": "FLUX.1-dev", "vae": "vae",
                                      "dtype": "bf16"}, "me/mine": "FLUX.1-schnell"}})");
  EXPECT_EQ(shown(config, kDev, "dev"), "FLUX.1-dev");
  EXPECT_EQ(shown(config, "me/mine", "dev"), "FLUX.1-schnell");
  EXPECT_EQ(shown(config, "black-forest-labs/flux-schnell", "schnell"), "other stands in");
  const LocalWeights weights = weights_behind(config, kDev, "dev").weights;
  EXPECT_EQ(weights.vae, folder_ / "vae");
  EXPECT_EQ(weights.dtype, "bf16");
}

TEST_F(ModelConfigTest, TheCommandLineIsStrongerThanTheFile) {
  const std::string file = R"({"models": {"dev": "other", "schnell": "FLUX.1-schnell"}})";
  const ModelConfig config = read(file, {"dev=" + path("FLUX.1-dev")});
  EXPECT_EQ(shown(config, kDev, "dev"), "FLUX.1-dev");
  EXPECT_EQ(shown(config, "black-forest-labs/flux-schnell", "schnell"), "FLUX.1-schnell");
  EXPECT_EQ(stand_in_note(config), "");
  EXPECT_EQ(shown(read("", {path("other") + "/"}), "black-forest-labs/flux-schnell", "schnell"), "FLUX.1-schnell");
}

TEST_F(ModelConfigTest, TheModelInTheBoxThenTheFirstOneStandIn) {
  ModelConfig config = read("", {"schnell=" + path("FLUX.1-schnell")});
  EXPECT_EQ(shown(config, kDev, "dev"), "FLUX.1-schnell stands in");
  EXPECT_NE(stand_in_note(config).find("flux-dev are drawn by FLUX.1-schnell"), std::string::npos)
      << stand_in_note(config);
  config.in_the_box = folder_ / "calotype-icons";
  EXPECT_EQ(shown(config, kDev, "dev"), "calotype-icons stands in");
  EXPECT_NE(weights_behind(config, kDev, "dev").sentence.find("the small model in the box"), std::string::npos);
}

TEST_F(ModelConfigTest, TheEnvironmentIsTheWeakest) {
  ::setenv("CALOTYPE_MODEL_DEV", path("other").c_str(), 1);
  const ModelConfig weak = read("");
  const ModelConfig strong = read(R"({"models": {"dev": "FLUX.1-dev"}})");
  ::unsetenv("CALOTYPE_MODEL_DEV");
  EXPECT_EQ(shown(weak, kDev, "dev"), "other");
  EXPECT_EQ(shown(strong, kDev, "dev"), "FLUX.1-dev");
}

// Where pull() leaves it: tests/hub/hub_test.cpp.
TEST_F(ModelConfigTest, PulledModelsAreFoundByName) {
  const fs::path pulled = folder_ / "calotype/models/who/FLUX.1-dev";
  fs::create_directories(pulled);
  EXPECT_THROW(read("", {"dev=who/FLUX.1-dev"}), base::Error);
  base::write_file(pulled / "calotype-source.json", "{}");
  ::setenv("XDG_DATA_HOME", folder_.path().c_str(), 1);
  const ModelConfig named = read("", {"dev=who/FLUX.1-dev"}), all = read("", {"who/FLUX.1-dev"}),
                    file = read(R"({"models": {"dev": {"model": "who/FLUX.1-dev", "vae": "vae"}}})");
  ::unsetenv("XDG_DATA_HOME");
  EXPECT_EQ(weights_behind(named, kDev, "dev").weights.model, pulled);
  EXPECT_FALSE(weights_behind(named, kDev, "dev").stand_in);
  EXPECT_EQ(weights_behind(all, "black-forest-labs/flux-schnell", "schnell").weights.model, pulled);
  EXPECT_EQ(weights_behind(file, kDev, "dev").weights.model, pulled);
}

TEST_F(ModelConfigTest, MistakesAreNamed) {
  EXPECT_THROW(weights_behind(ModelConfig{}, kDev, "dev"), base::Error);
  const std::pair<const char*, const char*> cases[] = {
      {R"({"models": {"dev": "nowhere"}})", "models.dev: names"},
      {R"({"models": {"dev": 7}})", "models.dev: is 7, expected a path"},
      {R"({"models": {"dev": {"vae": "vae"}}})", "models.dev: names no model"},
      {R"({"models": {"dev": {"model": "other", "type": "x"}}})", "models.dev.type: is unknown"},
      {R"({"models": {"dev": {"model": "other", "dtype": "int4"}}})", "dtype: is \"int4\""},
      {"{", "expected {\"models\""}};
  for (const auto& [json, words] : cases) try {
      read(json);
      ADD_FAILURE() << json;
    } catch (const base::Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  fs::remove(folder_ / "models.json");
  EXPECT_THROW(read("", {"dev=" + path("nowhere")}), base::Error);
}

}  // namespace
}  // namespace calotype::worker
