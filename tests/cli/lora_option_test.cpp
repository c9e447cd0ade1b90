// --lora and --lora-dir as users write them, and what a finished picture says of them.
#include "cli/lora_option.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "image/png_metadata.h"
#include "support/golden.h"

namespace calotype::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::golden_path;

TEST(LoraOption, LastColonWithANumberIsTheScale) {
  struct Case {
    std::string text;
    fs::path path;
    double scale;
  };
  const Case cases[] = {{"a.safetensors", "a.safetensors", 1},
                        {"a.safetensors:0.5", "a.safetensors", 0.5},
                        {"dir/a:b.safetensors", "dir/a:b.safetensors", 1},
                        {"a:b:-2", "a:b", -2},
                        {"a:+1e-1", "a", 0.1},
                        {"a:1:2", "a:1", 2},
                        {":0.5", ":0.5", 1},
                        {"a:", "a:", 1}};
  for (const Case& c : cases) {
    const adapters::LoraChoice choice = parse_lora(c.text, {});
    EXPECT_EQ(choice.path, c.path) << c.text;
    EXPECT_EQ(choice.scale, c.scale) << c.text;
  }
  EXPECT_THROW(parse_lora("", {}), base::Error);
}

TEST(LoraOption, FolderHoldsNamesWithoutSlash) {
  const test::TemporaryFolder folder;
  std::ofstream(folder / "ink.safetensors") << "x";
  std::ofstream(folder / "a:b") << "x";
  EXPECT_EQ(parse_lora("ink", folder.path()).path, folder / "ink.safetensors");
  EXPECT_EQ(parse_lora("ink.safetensors:0.5", folder.path()).path, folder / "ink.safetensors");
  EXPECT_EQ(parse_lora("a:b", folder.path()).path, folder / "a:b");
  EXPECT_EQ(parse_lora("./ink", folder.path()).path, "./ink");
  for (const char* name : {"absent", "..", ".", "absent:0.5"})
    EXPECT_THROW(parse_lora(name, folder.path()), base::Error);
  EXPECT_THROW(parse_lora((folder / "ink.safetensors").string() + ":half", {}), base::Error);
}

test::ProgramResult generate(const std::vector<std::string>& extra) {
  std::vector<std::string> arguments = {"generate", "a red apple", "--model",  golden_path("models/m1_dev").string(),
                                        "--width",  "28",          "--height", "20",
                                        "--steps",  "1",           "--seed",   "3"};
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  return test::run_calotype(arguments);
}

TEST(LoraOption, ResultAndPictureNameAdaptersAndScales) {
  const test::TemporaryFolder folder;
  const fs::path adapters = golden_path("training");
  const auto run = generate({"--lora", (adapters / "adapter_peft.safetensors").string(), "--lora", "adapter_xlabs:0.25",
                             "--lora-dir", adapters.string(), "--json", "-o", (folder / "a.png").string()});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const json loras = json::parse(run.out).at("loras");
  ASSERT_EQ(loras.size(), 2u);
  EXPECT_EQ(
      loras[0],
      (json{
          {"path", (adapters / "adapter_peft.safetensors").string()}, {"scale", 1.0}, {"applied", 46}, {"total", 46}}));
  EXPECT_EQ(loras[1].at("scale"), 0.25);
  EXPECT_EQ(loras[1].at("applied"), 14);
  auto texts = image::png_texts(base::read_file(folder / "a.png", 1 << 20), "a.png");
  EXPECT_TRUE(texts["parameters"].starts_with("a red apple <lora:adapter_peft:1> <lora:adapter_xlabs:0.25>\nSteps: 1"))
      << texts["parameters"];
  EXPECT_EQ(json::parse(texts["calotype"]).at("loras"),
            json::parse(R"([{"name": "adapter_peft.safetensors", "scale": 1.0},
                            {"name": "adapter_xlabs.safetensors", "scale": 0.25}])"));
}

TEST(LoraOption, MistakesEndBeforeDrawing) {
  const test::TemporaryFolder folder;
  const std::string output = (folder / "a.png").string(),
                    peft = golden_path("training/adapter_peft.safetensors").string();
  const std::pair<std::string, std::string> cases[] = {{peft + ":11", "-10 to 10"},
                                                       {peft + ":nan", "-10 to 10"},
                                                       {peft + ":x", "not a number"},
                                                       {(folder / "absent").string(), "absent"},
                                                       {golden_path("noise.safetensors").string(), "none of a LoRA"}};
  for (const auto& [lora, words] : cases) {
    const auto run = generate({"--lora", lora, "-o", output});
    EXPECT_EQ(run.exit_code, 2) << lora;
    EXPECT_NE(run.error.find(words), std::string::npos) << run.error;
    EXPECT_FALSE(fs::exists(output)) << lora;
  }
  const auto json_run = generate({"--json", "-o", output});
  ASSERT_EQ(json_run.exit_code, 0) << json_run.error;
  EXPECT_EQ(json::parse(json_run.out).at("loras"), json::array());
}

}  // namespace
}  // namespace calotype::cli
