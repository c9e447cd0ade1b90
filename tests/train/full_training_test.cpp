// Training of all weights as a user runs it: from configurations alone, of the autoencoder, killed and taken up again;
// what comes out is a model like any other. tools/reference/check_model.py shows that diffusers draws the same with it.
#include <gtest/gtest.h>

#include <numeric>

#include "cli/train_runs.h"
#include "files/shard_index.h"
#include "pipeline/model_bundle.h"
#include "train/model_files.h"
#include "weights/unpack.h"

namespace calotype::cli {
namespace {

using weights::Component;

/// A golden model's folder with everything but the weights.
fs::path bare(const std::string& name, const fs::path& to) {
  fs::copy(model(name), to, fs::copy_options::recursive);
  std::vector<fs::path> weights;
  for (const auto& entry : fs::recursive_directory_iterator(to))
    if (train::holds_weights(entry.path())) weights.push_back(entry.path());
  for (const fs::path& file : weights) fs::remove(file);
  return to;
}

Words full(const fs::path& data, const fs::path& from, const fs::path& output, const Words& more) {
  Words all = {"--model", from.string(), "--mode", "full", "--json-log"};
  all.insert(all.end(), more.begin(), more.end());
  return command(data, output, all);
}

struct Losses {
  double first, last;  ///< mean of the first and the last five steps
};
Losses losses(const ProgramResult& run) {
  std::vector<double> all;
  for (const json& line : json_lines(run.out))
    if (line.contains("lr")) all.push_back(line.at("loss"));
  if (all.size() < 10) return {0, 1e9};
  return {std::accumulate(all.begin(), all.begin() + 5, 0.0) / 5, std::accumulate(all.end() - 5, all.end(), 0.0) / 5};
}

/// `inspect` calls the folder whole and `generate` draws with it.
void expect_model(const fs::path& folder) {
  const ProgramResult inspected = run_calotype({"inspect", folder.string()});
  EXPECT_EQ(inspected.exit_code, 0) << inspected.error;
  expect_words(inspected.out, {"Complete: everything needed to generate is here."});
  const fs::path drawn = folder.string() + ".png";
  const ProgramResult generated =
      run_calotype({"generate", "a disc", "--model", folder.string(), "--width", "32", "--height", "32", "--steps", "2",
                    "--seed", "1", "--threads", "1", "--output", drawn.string()});
  EXPECT_EQ(generated.exit_code, 0) << generated.error;
  EXPECT_TRUE(fs::exists(drawn));
}

class FullTraining : public testing::TestWithParam<const char*> {};

// The last layer begins at zero, so the first loss is that of predicting nothing; half of it needs what the text, the
// noise level and the noisy picture say. The reference recipe uses the same options.
TEST_P(FullTraining, FromConfigurationsAlone) {
  const TemporaryFolder folder;
  const fs::path from = bare("m2_schnell", folder / "bare"), data = zip(folder, picture_parts(16)),
                 out = folder / "out";
  const ProgramResult run = run_calotype(
      full(data, from, out,
           {"--text-encoders", "--optimizer", "muon", "--schedule", "linear", "--decay", "0.6", "--lr", "3e-3",
            "--batch", "16", "--steps", "50", "--latents", "mean", "--dtype", GetParam(), "--save-type", "f32"}));
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto [first, last] = losses(run);
  EXPECT_LT(last, 0.5 * first);
  EXPECT_FALSE(train::holds_weights(from / "transformer" / "config.json"));
  expect_model(out);
  EXPECT_FALSE(fs::exists(out.string() + ".new") || fs::exists(out.string() + ".staging"));
}

INSTANTIATE_TEST_SUITE_P(NumberTypes, FullTraining, testing::Values("f32", "bf16"));

using Parts = std::map<std::string, at::Tensor>;

/// All weights in our names.
Parts weights_of(const fs::path& folder) {
  Parts out;
  for (const auto& [component, index] : pipeline::open_bundle({.model = folder}).parts)
    for (const auto& [name, source] : index.tensors)
      out[fmt::format("{} {}", weights::name(component), name)] = weights::unpack(source, at::kFloat).clone();
  return out;
}

// Without weight decay only a gradient moves a weight, and without epsilon any gradient does. Zero modulation opens
// layer by layer, within a few steps.
TEST(FullTraining, MovesEveryWeightThatIsTrainedAndNoOther) {
  const TemporaryFolder folder;
  const fs::path from = bare("m4_dev", folder / "bare"), data = zip(folder, picture_parts(4));
  const Words options = {"--steps",   "12",    "--lr",    "3e-3", "--weight-decay", "0",
                         "--epsilon", "1e-20", "--dtype", "f32",  "--save-type",    "f32"};
  for (const bool encoders : {false, true}) {
    const fs::path out = folder / (encoders ? "joint" : "alone");
    Words more = options;
    if (encoders) more.push_back("--text-encoders");
    const ProgramResult run = run_calotype(full(data, from, out, more));
    ASSERT_EQ(run.exit_code, 0) << run.error;
    const Parts before = weights_of(work(out) / "initial"), after = weights_of(out);
    ASSERT_EQ(before.size(), after.size());
    for (const auto& [name, value] : before) {
      const bool text =
          name.starts_with(weights::name(Component::clip)) || name.starts_with(weights::name(Component::t5));
      const bool trained = name.starts_with(weights::name(Component::transformer)) || (text && encoders);
      EXPECT_EQ(!at::equal(value, after.at(name).view_as(value)), trained) << name;
    }
  }
}

/// Bytes of every weight file below.
std::map<std::string, std::string> weight_files(const fs::path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.path().extension() == ".safetensors")
      out[fs::relative(entry.path(), folder).string()] = bytes_of(entry.path());
  return out;
}

TEST(FullTraining, KilledItEndsWithTheBytesOfAnUninterruptedRun) {
  const TemporaryFolder folder;
  const fs::path from = bare("m2_schnell", folder / "bare"), data = zip(folder, picture_parts(6));
  const fs::path whole = folder / "whole", killed = folder / "killed";
  const auto words = [&](const fs::path& output) {
    return full(data, from, output,
                {"--text-encoders", "--optimizer", "muon", "--steps", "40", "--checkpoint-every", "4", "--flip",
                 "--dtype", "f32"});
  };
  ASSERT_EQ(run_calotype(words(whole)).exit_code, 0);
  {
    Running run(words(killed), folder / "errors");
    ASSERT_TRUE(wait_until([&] { return fs::exists(checkpoint(killed, 8)); })) << run.errors();
    run.send(SIGKILL);
    ASSERT_EQ(run.wait(), 128 + SIGKILL);
  }
  ASSERT_FALSE(fs::exists(killed));
  const ProgramResult resumed = run_calotype(words(killed));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.error;
  expect_words(resumed.error, {"going on after step"});
  const auto want = weight_files(whole), got = weight_files(killed);
  ASSERT_EQ(want.size(), 4u);
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, bytes] : want) EXPECT_TRUE(got.at(name) == bytes) << name;
}

struct AutoencoderCase {
  const char* name;
  bool scratch;
  double share;  ///< of the first loss that the last one must be below
};
void PrintTo(const AutoencoderCase& c, std::ostream* out) { *out << c.name; }
class AutoencoderTraining : public testing::TestWithParam<AutoencoderCase> {};

// Predicting the mean colour alone takes most of the loss on these pictures, which are nearly plain; the golden weights
// are random numbers as well, but other ones.
TEST_P(AutoencoderTraining, LearnsAndLeavesTheRestAlone) {
  const TemporaryFolder folder;
  const fs::path from = GetParam().scratch ? bare("m2_schnell", folder / "from") : fs::path(model("m2_schnell"));
  const fs::path data = zip(folder, picture_parts(16)), out = folder / "out";
  const ProgramResult run =
      run_calotype(full(data, from, out,
                        {"--component", "autoencoder", "--steps", "80", "--batch", "8", "--crop", "16", "--optimizer",
                         "muon", "--dtype", "f32", "--save-type", "f32", "--validation-split", "0.2"}));
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto [first, last] = losses(run);
  EXPECT_LT(last, GetParam().share * first);
  const json result = json_lines(run.out).back();
  EXPECT_LT(result.at("validation_loss").get<double>(), result.at("base_validation_loss").get<double>());
  expect_model(out);
  const Parts before = weights_of(GetParam().scratch ? work(out) / "initial" : from), after = weights_of(out);
  for (const auto& [name, value] : before)
    EXPECT_EQ(at::equal(value, after.at(name).view_as(value)), !name.starts_with(weights::name(Component::vae)))
        << name;
}

INSTANTIATE_TEST_SUITE_P(Beginnings, AutoencoderTraining,
                         testing::Values(AutoencoderCase{"scratch", true, 0.7}, AutoencoderCase{"golden", false, 0.7}),
                         [](const auto& test) { return std::string(test.param.name); });

/// Sets one field of a part's configuration.
void configure(const fs::path& folder, const char* part, const char* key, const json& value) {
  const fs::path file = folder / part / "config.json";
  json config = files::read_json_object(file);
  config[key] = value;
  std::ofstream(file) << config;
}

// Encoded pictures are kept between runs, but not those that a VAE with other settings encoded.
TEST(FullTraining, KeptLatentsBelongToTheVaesSettings) {
  const TemporaryFolder folder;
  const fs::path from = folder / "model", data = zip(folder, picture_parts(3));
  fs::copy(model("m2_schnell"), from, fs::copy_options::recursive);
  const auto first_loss = [&](const char* output) {
    const ProgramResult run = run_calotype(full(data, from, folder / output, {"--steps", "1", "--restart"}));
    EXPECT_EQ(run.exit_code, 0) << run.error;
    return run.exit_code ? 0.0 : json_lines(run.out).front().at("loss").get<double>();
  };
  const double before = first_loss("one");
  configure(from, "vae", "scaling_factor", 1.5);
  const double after = first_loss("one");
  EXPECT_NE(after, before);
  EXPECT_EQ(after, first_loss("fresh"));
}

// A file has no config.json beside it: what the tensors do not show (groups, scaling) must come along in the file.
TEST(AutoencoderFile, TrainedFromOneFileOpens) {
  const TemporaryFolder folder;
  const std::string vae = (folder / "vae.safetensors").string();
  ASSERT_EQ(run_calotype({"convert", model("m2_schnell"), vae, "--part", "vae"}).exit_code, 0);
  const fs::path out = folder / "out";
  const ProgramResult run = run_calotype(
      command(zip(folder, picture_parts(2)), out,
              {"--vae", vae, "--component", "autoencoder", "--mode", "full", "--steps", "2", "--crop", "16"}));
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const fs::path trained = out / "vae.safetensors", drawn = folder / "a.png";
  const ProgramResult generated =
      run_calotype({"generate", "a disc", "--model", model("m2_schnell"), "--vae", trained.string(), "--width", "32",
                    "--height", "32", "--steps", "1", "--output", drawn.string()});
  EXPECT_EQ(generated.exit_code, 0) << generated.error;
}

// Writing the result copies the model's folder, which must not contain the result.
TEST(FullTrainingMistakes, OutputInsideTheModelIsRefusedAtOnce) {
  const TemporaryFolder folder;
  const fs::path data = zip(folder, picture_parts(2));
  for (const bool weights : {false, true}) {
    const fs::path from = folder / (weights ? "whole" : "bare");
    if (weights)
      fs::copy(model("m2_schnell"), from, fs::copy_options::recursive);
    else
      bare("m2_schnell", from);
    const ProgramResult run = run_calotype(full(data, from, from / "result", {"--steps", "1"}));
    EXPECT_EQ(run.exit_code, 2);
    expect_words(run.error, {"result", "inside the model", "--output"});
    EXPECT_FALSE(fs::exists(from / "result.train"));
  }
}

// Without a checkpoint nothing was learned yet, so another seed begins anew rather than with the earlier one's weights.
TEST(FullTrainingMistakes, AnotherSeedBeforeTheFirstCheckpointMakesOtherWeights) {
  const TemporaryFolder folder;
  const fs::path from = bare("m2_schnell", folder / "bare"), data = zip(folder, picture_parts(2));
  const fs::path interrupted = folder / "interrupted", fresh = folder / "fresh";
  const auto words = [&](const fs::path& output, const char* seed) {
    return full(data, from, output, {"--steps", "1", "--dtype", "f32", "--seed", seed});
  };
  ASSERT_EQ(run_calotype(words(interrupted, "1")).exit_code, 0);
  fs::remove_all(work(interrupted) / "checkpoints");  // as if it had been killed before
  fs::remove_all(interrupted);
  ASSERT_EQ(run_calotype(words(interrupted, "2")).exit_code, 0);
  ASSERT_EQ(run_calotype(words(fresh, "2")).exit_code, 0);
  EXPECT_TRUE(weight_files(interrupted) == weight_files(fresh));
}

// The promise is 10 %; here memory is small beside the program itself, and machines differ in how their allocator fills
// gaps.
TEST(Forecast, IsNearThePeakOfTheRun) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own memory is several times the program's";
#endif
  const TemporaryFolder folder;
  const fs::path from = bare("m2_schnell", folder / "bare"), data = zip(folder, picture_parts(2));
  for (const auto& [key, value] : std::map<std::string, json>{
           {"attention_head_dim", 64}, {"axes_dims_rope", {16, 24, 24}}, {"num_attention_heads", 6}})
    configure(from, "transformer", key.c_str(), value);
  const auto peak = [&](const Words& words) {
    const ProgramResult run = run_calotype(words);
    EXPECT_EQ(run.exit_code, 0) << run.error;
    return run.exit_code ? 1.0 : json_lines(run.out).back().at("peak_memory_bytes").get<double>();
  };
  const Words few = {"--dtype", "f32", "--steps", "2", "--max-sequence-length", "128", "--batch", "4"};
  const fs::path base = folder / "base";
  peak(full(data, from, base, {"--dtype", "f32", "--steps", "1"}));
  struct Case {
    const char *mode, *recompute;
  };
  for (const Case& c : {Case{"full", "off"}, Case{"lora", "on"}}) {
    Words more = few;
    more.insert(more.end(), {"--mode", c.mode, "--recompute", c.recompute});
    const fs::path out = folder / (std::string(c.mode) + c.recompute + ".safetensors");
    Words dry = more;
    dry.insert(dry.end(), {"--dry-run", "--json"});
    EXPECT_NEAR(peak(full(data, base, out, dry)) / peak(full(data, base, out, more)), 1, 0.15)
        << c.mode << ", recompute " << c.recompute;
  }
}

}  // namespace
}  // namespace calotype::cli
