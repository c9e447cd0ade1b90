// The program as users meet it: exit status, one sentence for each mistake, files whole or absent.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "base/atomic_file.h"
#include "image/image_codec.h"
#include "image/png_metadata.h"
#include "support/golden.h"

namespace calotype::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::golden_path;
using test::ProgramResult;
using test::run_calotype;

std::string model(const std::string& name = "m2_schnell") { return golden_path("models/" + name).string(); }

ProgramResult generate(std::vector<std::string> extra, const std::string& prompt = "a red apple") {
  std::vector<std::string> arguments = {"generate", prompt,    "--width", "32",     "--height",
                                        "24",       "--steps", "2",       "--seed", "3"};
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  return run_calotype(arguments);
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

TEST(Generate, WritesOnePictureAndTellsItAsJson) {
  const test::TemporaryFolder folder;
  const ProgramResult run = generate({"--model", model(), "--json", "-o", (folder / "a.png").string()});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const json result = json::parse(run.out);
  EXPECT_EQ(result.at("seed"), 3);
  EXPECT_EQ(result.at("pictures").at(0).at("path"), (folder / "a.png").string());
  for (const char* stage : {"text", "load", "denoise", "decode"})
    EXPECT_GE(result.at("seconds").at(stage).get<double>(), 0);
  EXPECT_GT(result.at("peak_memory_bytes").get<int64_t>(), 0);
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"a.png"}));
  const image::RgbImage picture = image::decode(folder / "a.png");
  EXPECT_EQ(picture.width, 32);
  EXPECT_EQ(picture.height, 24);
}

TEST(Generate, PngCarriesParametersAndSettings) {
  const test::TemporaryFolder folder;
  const std::string prompt = "emoji 🍎, “quotes” and\nlines";
  ASSERT_EQ(generate({"--model", model("m1_dev"), "-o", (folder / "a.png").string()}, prompt).exit_code, 0);
  auto texts = image::png_texts(base::read_file(folder / "a.png", 1 << 20), "a.png");
  EXPECT_TRUE(texts["parameters"].starts_with(prompt + "\nSteps: 2, Sampler: Euler")) << texts["parameters"];
  EXPECT_NE(texts["parameters"].find("Distilled CFG Scale: 3.5, Seed: 3, Size: 32x24"), std::string::npos)
      << texts["parameters"];
  EXPECT_EQ(json::parse(texts["calotype"]).at("prompt"), prompt);
  EXPECT_NE(texts["XML:com.adobe.xmp"].find("trainedAlgorithmicMedia"), std::string::npos);
  ASSERT_EQ(generate({"--model", model(), "--no-metadata", "--no-ai-tag", "-o", (folder / "b.png").string()}).exit_code,
            0);
  EXPECT_TRUE(image::png_texts(base::read_file(folder / "b.png", 1 << 20), "b.png").empty());
}

TEST(Generate, SavedLatentsDecodeToTheSamePicture) {
  const test::TemporaryFolder folder;
  ASSERT_EQ(generate({"--model", model(), "--count", "2", "--save-latents", (folder / "l").string(), "-o",
                      (folder / "a.png").string()})
                .exit_code,
            0);
  const ProgramResult run =
      run_calotype({"decode", (folder / "l").string(), "--vae", model() + "/vae", "-o", (folder / "d.png").string()});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  EXPECT_EQ(run_calotype({"decode", (folder / "l").string(), "--vae", model() + "/vae", "-o",
                          (folder / "none" / "d.png").string()})
                .exit_code,
            2);
  for (const char* number : {"1", "2"})
    EXPECT_EQ(image::decode(folder / (std::string("a-") + number + ".png")).pixels,
              image::decode(folder / (std::string("d-") + number + ".png")).pixels);
}

TEST(Generate, PromptFileGivesWhatSinglePromptsGive) {
  const test::TemporaryFolder folder;
  std::ofstream(folder / "prompts.txt") << "\xEF\xBB\xBF"
                                           "a red apple\r\n\na blue house\n";
  const ProgramResult run =
      run_calotype({"generate", "--prompt-file", (folder / "prompts.txt").string(), "--model", model(), "--width", "32",
                    "--height", "24", "--steps", "2", "--seed", "3", "-o", (folder / "p.png").string()});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  ASSERT_EQ(generate({"--model", model(), "-o", (folder / "one.png").string()}).exit_code, 0);
  EXPECT_EQ(image::decode(folder / "p-1.png").pixels, image::decode(folder / "one.png").pixels);
  EXPECT_TRUE(fs::exists(folder / "p-2.png"));
}

TEST(Generate, PreviewShowsTheFormingPicture) {
  const test::TemporaryFolder folder;
  ASSERT_EQ(generate({"--model", model(), "--preview", (folder / "p.png").string(), "-o", (folder / "a.png").string()})
                .exit_code,
            0);
  EXPECT_GT(image::decode(folder / "p.png").width, 0);
}

TEST(Generate, WithoutAModelTheOneInTheBoxDraws) {
  const test::TemporaryFolder folder;
  const ProgramResult run = run_calotype({"generate", "a cat", "--steps", "1", "-o", (folder / "a.png").string()});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  EXPECT_NE(run.error.find("the small model in the box, which draws icons"), std::string::npos) << run.error;
  EXPECT_EQ(image::decode(folder / "a.png").width, 128);
}

TEST(Generate, AnotherFolderForPulledModelsLeavesTheBoxWhereItIs) {
  const test::TemporaryFolder folder;
  ::setenv("CALOTYPE_DATA", folder.path().c_str(), 1);
  const ProgramResult run = run_calotype({"generate", "a cat", "--steps", "1", "-o", (folder / "a.png").string()});
  ::unsetenv("CALOTYPE_DATA");
  EXPECT_EQ(run.exit_code, 0) << run.error;
}

struct Mistake {
  std::vector<std::string> arguments;
  std::vector<std::string> words;  ///< the message must hold each
};

TEST(Generate, EachMistakeGetsOneSentenceAndExitStatus2) {
  const test::TemporaryFolder folder;
  const std::string out = (folder / "a.png").string(), m = model();
  std::ofstream(folder / "page.safetensors") << "<!DOCTYPE html><html>Access to this model is restricted</html>";
  std::ofstream(folder / "pickle.safetensors") << "\x80\x02}q\x01X";
  std::ofstream(folder / "empty.safetensors");
  const Mistake mistakes[] = {
      {{"--model", "/nowhere/flux"}, {"/nowhere/flux", "no such file"}},
      {{"--model", m, "--width", "0"}, {"--width", "0"}},
      {{"--model", m, "--height", "65536"}, {"--height", "65536"}},
      {{"--model", m, "--steps", "-3"}, {"--steps", "-3"}},
      {{"--model", m, "--seed", "-1"}, {"--seed", "-1"}},
      {{"--model", m, "--seed", "1.5"}, {"--seed", "1.5"}},
      {{"--model", m, "--seed", "99999999999999999999"}, {"--seed"}},
      {{"--model", m, "--guidance", "nan"}, {"--guidance"}},
      {{"--model", m, "--dtype", "int8"}, {"--dtype", "int8", "bf16"}},
      {{"--model", m, "--device", "tpu"}, {"--device", "tpu"}},
      {{"--model", m, "--noise", "white"}, {"--noise", "white"}},
      {{"--model", m, "--format", "bmp"}, {"bmp", "png"}},
      {{"--model", m, "--no-such-option"}, {"--no-such-option", "calotype generate --help"}},
      {{"--model", m, "--steps", "x"}, {"--steps", "x", "whole number"}},
      {{"--model", m, "--guidance", "x"}, {"--guidance", "expected a number"}},
      {{"--model", m, "red", "apple"}, {"red apple", "quotes"}},
      {{"--model", m, "--strength", "0.5"}, {"--strength", "--image"}},
      {{"--model", m, "--mask", "mask.png"}, {"--mask", "--image"}},
      {{"--model", m, "--prompt-file", "prompts.txt"}, {"--prompt-file", "one of them"}},
      {{"--model", m, "--preview", "p.bmp"}, {"p.bmp", "png"}},
      {{"--model", m, "--preview", "/nowhere/p.png"}, {"/nowhere/p.png", "does not exist"}},
      {{"--model", (folder / "page.safetensors").string()}, {"page.safetensors", "web page"}},
      {{"--model", (folder / "pickle.safetensors").string()}, {"pickle.safetensors", "pickle"}},
      {{"--model", (folder / "empty.safetensors").string()}, {"empty.safetensors", "empty"}},
  };
  for (const Mistake& mistake : mistakes) {
    std::vector<std::string> arguments = mistake.arguments;
    arguments.insert(arguments.end(), {"-o", out});
    const ProgramResult run = generate(arguments);
    EXPECT_EQ(run.exit_code, 2) << run.error;
    for (const std::string& word : mistake.words)
      EXPECT_NE(run.error.find(word), std::string::npos) << word << " not in: " << run.error;
    EXPECT_FALSE(fs::exists(out));
  }
  EXPECT_EQ(generate({"--model", m, "-o", (folder / "none" / "a.png").string()}).exit_code, 2);
  EXPECT_EQ(generate({"--model", m, "-o", out}, "broken \xff").exit_code, 2);
  EXPECT_EQ(run_calotype({"generate", "--model", m, "-o", out}).exit_code, 2);
}

TEST(Generate, MissingTruncatedAndShardlessPartsAreNamed) {
  const test::TemporaryFolder folder;
  const fs::path copy = folder / "model";
  const auto failing = [&](const std::vector<std::string>& words) {
    const ProgramResult run = generate({"--model", copy.string(), "-o", (folder / "a.png").string()});
    EXPECT_EQ(run.exit_code, 2) << run.error;
    for (const std::string& word : words)
      EXPECT_NE(run.error.find(word), std::string::npos) << word << " not in: " << run.error;
  };
  const auto fresh = [&] {
    fs::remove_all(copy);
    fs::copy(golden_path("models/m2_schnell"), copy, fs::copy_options::recursive);
  };
  const std::pair<const char*, const char*> parts[] = {
      {"transformer", "--transformer"}, {"vae", "--vae"}, {"text_encoder", "--clip"}, {"text_encoder_2", "--t5"}};
  for (const auto& [part, option] : parts) {
    fresh();
    fs::remove_all(copy / part);
    failing({"missing", option});
  }
  fresh();
  const fs::path vae = copy / "vae" / "diffusion_pytorch_model.safetensors";
  fs::resize_file(vae, fs::file_size(vae) - 1);
  failing({"diffusion_pytorch_model.safetensors", "cut short"});
  fresh();
  for (const auto& entry : fs::directory_iterator(copy / "transformer"))
    if (entry.path().filename().string().find("00002-of") != std::string::npos) fs::remove(entry.path());
  failing({"00002-of", "missing", "fetch it again"});
}

TEST(Generate, InterruptLeavesNoFile) {
  const test::TemporaryFolder folder;
  const std::string out = (folder / "a.png").string(), m = model("m1_dev");
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGINT, SIG_DFL);     // a runner may have it ignored
    ::close(STDERR_FILENO);  // nobody listens; the work must not mind
    ::execl(CALOTYPE_BINARY, CALOTYPE_BINARY, "generate", "x", "--model", m.c_str(), "--width", "512", "--height",
            "512", "--steps", "1000", "-o", out.c_str(), nullptr);
    ::_exit(127);
  }
  ::sleep(3);  // long enough to start, far too short to end
  ::kill(child, SIGINT);
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(Inspect, SaysWhatIsThereAndWhatIsMissing) {
  const ProgramResult whole = run_calotype({"inspect", model(), "--check", "--json"});
  ASSERT_EQ(whole.exit_code, 0) << whole.error;
  const json report = json::parse(whole.out);
  EXPECT_TRUE(report.at("missing").empty());
  EXPECT_TRUE(report.at("sound"));
  EXPECT_EQ(report.at("files").size(), 4u);
  const ProgramResult part = run_calotype({"inspect", golden_path("layouts/m1_dev/flux1-f16.gguf").string()});
  EXPECT_EQ(part.exit_code, 0) << part.error;
  for (const char* word : {"GGUF", "dev: 2 double and 3 single blocks",
                           "Missing to generate: the VAE, the CLIP text encoder, the T5 text encoder"})
    EXPECT_NE(part.out.find(word), std::string::npos) << part.out;
  const ProgramResult adapter = run_calotype({"inspect", golden_path("training/adapter_peft.safetensors").string()});
  EXPECT_EQ(adapter.exit_code, 0) << adapter.error;
  EXPECT_NE(adapter.out.find("an adapter (LoRA) of"), std::string::npos) << adapter.out;
}

TEST(Program, HelpAndVersion) {
  EXPECT_EQ(run_calotype({"--version"}).exit_code, 0);
  const ProgramResult help = run_calotype({"generate", "--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* option : {"--model", "--seed", "--true-cfg", "--save-latents", "--prompt-file"})
    EXPECT_NE(help.out.find(option), std::string::npos) << option;
  EXPECT_EQ(run_calotype({}).exit_code, 2);
}

TEST(Program, UnknownAndMissingCommandsAreNamed) {
  const Mistake mistakes[] = {
      {{}, {"no command was given, expected one of generate, decode", "`calotype --help`"}},
      {{"genrate", "a cat"}, {"genrate is no command, expected one of generate, decode"}},
      {{"token"}, {"no command was given, expected one of create, list, revoke", "`calotype token --help`"}},
      {{"token", "mint"}, {"mint is no command, expected one of create, list, revoke"}},
  };
  for (const Mistake& mistake : mistakes) {
    const ProgramResult run = run_calotype(mistake.arguments);
    EXPECT_EQ(run.exit_code, 2);
    for (const std::string& word : mistake.words)
      EXPECT_NE(run.error.find(word), std::string::npos) << word << " not in: " << run.error;
  }
}

}  // namespace
}  // namespace calotype::cli
