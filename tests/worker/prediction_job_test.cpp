// Predictions from the queue to the files, with a tiny random model. What is drawn is compared with the pipeline called
// directly; what the pipeline draws is compared with diffusers elsewhere (tests/pipeline).
#include <regex>

#include "base/base64.h"
#include "worker/jobs.h"
#include "worker/loopback.h"
#include "worker/prediction_settings.h"

namespace calotype::worker {
namespace {

class PredictionJob : public WorkerTest {};

TEST_F(PredictionJob, DrawsWhatThePipelineDraws) {
  const Job job = run(create(kDev, {{"prompt", "a disc"},
                                    {"seed", "7"},
                                    {"num_inference_steps", 3},
                                    {"num_outputs", 2},
                                    {"guidance", 4.5},
                                    {"output_format", "png"}}));
  ASSERT_EQ(job.status, JobStatus::succeeded) << job.error.value_or("") << job.logs;
  ASSERT_EQ(job.output.size(), 2u);
  pipeline::TextToImage flux(pipeline::open_bundle({.model = model()}), {});
  const auto want = flux.generate(
      {.prompt = "a disc", .width = 64, .height = 64, .steps = 3, .guidance = 4.5, .seed = 7, .count = 2});
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(picture(job.output[i]).pixels, want.pictures[i].image.pixels);
  const auto file = store_.files->find(store::referenced_file(job.output[1].get<std::string>()).value());
  EXPECT_EQ(file->name, "out-1.png");
  EXPECT_EQ(file->content_type, "image/png");
  EXPECT_EQ(job.metrics["image_count"], 2);
  EXPECT_GT(job.metrics["predict_time"].get<double>(), 0);
}

TEST_F(PredictionJob, SaysWhatItDoesAsHostedModelsDo) {
  const Job job = run(create(kSchnell, {{"prompt", "a disc"}, {"num_inference_steps", 2}}));
  ASSERT_EQ(job.status, JobStatus::succeeded) << job.error.value_or("");
  EXPECT_NE(job.logs.find("black-forest-labs/flux-schnell is drawn by m1_dev"), std::string::npos) << job.logs;
  EXPECT_TRUE(std::regex_search(job.logs, std::regex("(^|\n)Using seed: [0-9]+\nPrompt: a disc\n"))) << job.logs;
  // The expression with which replicate-python and replicate-javascript read progress from logs.
  EXPECT_TRUE(std::regex_search(job.logs, std::regex("(^|\n)\\s*(\\d+)%\\s*\\|.+?\\|\\s*(\\d+)\\/(\\d+)")));
  EXPECT_NE(job.logs.find("100%|██████████| 2/2 ["), std::string::npos) << job.logs;
  EXPECT_EQ(job.logs.find("Warning"), std::string::npos) << job.logs;
}

TEST_F(PredictionJob, WritesTheFormatsThatAreAskedFor) {
  const Job webp = create(kSchnell, {{"prompt", "x"}, {"num_inference_steps", 1}, {"megapixels", "0.25"}});
  const Job jpg = create(kSchnell, {{"prompt", "x"},
                                    {"num_inference_steps", 1},
                                    {"aspect_ratio", "16:9"},
                                    {"output_format", "jpg"},
                                    {"output_quality", 0}});
  run(jpg);
  const std::string first = file_bytes(find(webp).output[0]), second = file_bytes(find(jpg).output[0]);
  EXPECT_EQ(image::format_from_content(std::as_bytes(std::span(first))), image::Format::webp);
  EXPECT_EQ(image::format_from_content(std::as_bytes(std::span(second))), image::Format::jpeg);
  EXPECT_EQ(picture(find(webp).output[0]).width, 32);
  EXPECT_EQ(picture(find(jpg).output[0]).width, 80);
  EXPECT_EQ(picture(find(jpg).output[0]).height, 48);
}

// cog-flux predict.py, ASPECT_RATIOS; a quarter of a megapixel halves both sides.
TEST(PictureSize, IsReplicatesForModelsMadeFor1024) {
  const std::tuple<const char*, int, int> table[] = {{"1:1", 1024, 1024}, {"16:9", 1344, 768}, {"21:9", 1536, 640},
                                                     {"3:2", 1216, 832},  {"2:3", 832, 1216},  {"4:5", 896, 1088},
                                                     {"5:4", 1088, 896},  {"3:4", 896, 1152},  {"4:3", 1152, 896},
                                                     {"9:16", 768, 1344}, {"9:21", 640, 1536}};
  for (const auto& [ratio, width, height] : table) {
    EXPECT_EQ(picture_size(ratio, 1024, false).width, width);
    EXPECT_EQ(picture_size(ratio, 1024, false).height, height);
    EXPECT_EQ(picture_size(ratio, 1024, true).width, width / 2);
    EXPECT_EQ(picture_size(ratio, 1024, true).height, height / 2);
    const PictureSize small = picture_size(ratio, 128, false);
    EXPECT_EQ(small.width % 16 + small.height % 16, 0);
    // Rounding each side to 16 of about 128 changes the area by up to an eighth.
    EXPECT_NEAR(small.width * small.height, 128 * 128, 128 * 128 / 8) << ratio;
  }
}

TEST(GenerateOptions, ReadsCustomSizesAndBothSpellingsOfGuidance) {
  const Json tuned =
      with_defaults(fine_tuned_model(), {{"prompt", "x"}, {"aspect_ratio", "custom"}, {"width", 300}, {"height", 257}});
  const auto options = generate_options(tuned, tuned, {});
  EXPECT_EQ(options.width, 304);
  EXPECT_EQ(options.height, 272);
  const Json ignored = with_defaults(fine_tuned_model(), {{"prompt", "x"}, {"width", 300}});
  EXPECT_EQ(generate_options(ignored, ignored, {}).width, 1024);
  const Json given = {{"prompt", "x"}, {"guidance_scale", 7.5}};
  EXPECT_EQ(generate_options(with_defaults(*find_model(kDev), given), given, {}).guidance, 7.5);
  const Json none = {{"prompt", "x"}};
  EXPECT_EQ(generate_options(with_defaults(*find_model(kDev), none), none, {}).guidance, 3.0);
  EXPECT_FALSE(generate_options(with_defaults(*find_model(kDev), none), none, {.guidance = false}).guidance);
}

TEST(NamedLoras, AreThoseOfTheInputInOrder) {
  const auto names = [](const Json& input, const std::string& own) {
    std::string out;
    for (const NamedLora& lora : named_loras(input, own)) out += fmt::format("{}:{} ", lora.source, lora.scale);
    return out;
  };
  EXPECT_EQ(names({{"lora_weights", "a/b"}, {"extra_lora", "a/b"}, {"lora_scale", 0.5}}, ""), "a/b:0.5 ");
  EXPECT_EQ(names({{"lora_scale", 1.5}, {"extra_lora", "c/d"}, {"extra_lora_scale", -1}}, "own"), "own:1.5 c/d:-1 ");
  EXPECT_EQ(names({{"replicate_weights", "x/y"}}, "own"), "x/y:1 ");
  EXPECT_EQ(names({{"hf_loras", {"a/b", "c/d"}}, {"lora_scales", {0.25}}}, ""), "a/b:0.25 c/d:1 ");
}

TEST_F(PredictionJob, StartsFromAPicture) {
  const image::RgbImage gray{.width = 48, .height = 24, .pixels = std::vector<uint8_t>(48 * 24 * 3, 128)};
  const std::string uri = "data:image/png;base64," + base::base64(image::encode(gray));
  const Json input = {{"prompt", "x"}, {"image", uri}, {"seed", 1}, {"num_inference_steps", 4}, {"prompt_strength", 0.5}, {"output_format", "png"}};
  const Job job = run(create(kDev, input));
  ASSERT_EQ(job.status, JobStatus::succeeded) << job.error.value_or("");
  const image::RgbImage half = picture(job.output[0]);
  EXPECT_NEAR(half.width, 2 * half.height, 8);  // sides are multiples of 4
  Json more = input;
  more["prompt_strength"] = 1;
  const image::RgbImage all = picture(run(create(kDev, more)).output[0]);
  EXPECT_NE(half.pixels, all.pixels);
}

TEST_F(PredictionJob, DrawsInsideAMask) {
  const image::RgbImage gray{.width = 32, .height = 32, .pixels = std::vector<uint8_t>(32 * 32 * 3, 128)};
  image::RgbImage lower{.width = 32, .height = 32, .pixels = std::vector<uint8_t>(32 * 32 * 3)};
  std::fill(lower.pixels.begin() + 16 * 32 * 3, lower.pixels.end(), 255);
  const auto uri = [](const image::RgbImage& picture) {
    return "data:image/png;base64," + base::base64(image::encode(picture));
  };
  Json input = {{"prompt", "x"}, {"image", uri(gray)}, {"mask", uri(lower)}, {"num_inference_steps", 2}, {"output_format", "png"}};
  const Job job = run(create(kDev, input));
  ASSERT_EQ(job.status, JobStatus::succeeded) << job.error.value_or("");
  const std::vector<uint8_t> pixels = picture(job.output[0]).pixels;
  const auto is_gray = [](uint8_t value) { return value == 128; };
  const auto middle = pixels.begin() + static_cast<ptrdiff_t>(pixels.size() / 2);
  EXPECT_TRUE(std::all_of(pixels.begin(), middle, is_gray));
  EXPECT_FALSE(std::all_of(middle, pixels.end(), is_gray));
  input.erase("image");
  EXPECT_NE(run(create(kDev, input)).error->find("without the picture"), std::string::npos);
}

TEST_F(PredictionJob, RefusesInOneSentence) {
  const Job image = create(kDev, {{"prompt", "x"}, {"image", "data:image/png;base64,AA"}});
  const Job version = create("me/none", {{"prompt", "x"}});
  const Job trainer = create(kTrainer, Json::object());
  run(trainer);
  EXPECT_EQ(find(image).status, JobStatus::failed);
  EXPECT_TRUE(find(image).error->starts_with("image: ")) << *find(image).error;
  EXPECT_NE(find(version).error->find("me/none has no version"), std::string::npos) << *find(version).error;
  EXPECT_NE(find(trainer).error->find("create a training"), std::string::npos) << *find(trainer).error;
}

TEST_F(PredictionJob, WithoutWeightsSaysHowToConfigure) {
  const Job job = run(create(kDev, {{"prompt", "x"}}), WorkerOptions{});
  EXPECT_EQ(job.status, JobStatus::failed);
  EXPECT_NE(job.error->find("models.json"), std::string::npos) << *job.error;
}

TEST_F(PredictionJob, TheCanaryGreetsWordByWord) {
  const Job job = run(create("replicate/canary", {{"text", "Betty Browser"}}), WorkerOptions{});
  ASSERT_EQ(job.status, JobStatus::succeeded) << job.error.value_or("");
  std::string text;
  for (const Json& word : job.output) text += word.get<std::string>();
  EXPECT_EQ(text, "hello there, Betty Browser");
  EXPECT_EQ(job.output.size(), 4u);
}

// Each piece is stored with all before it: a long text in words would keep a worker busy for minutes.
TEST_F(PredictionJob, TheCanaryGreetsInAHundredPiecesAtMost) {
  std::string name, said;
  for (int i = 0; i < 1000; ++i) name += "word ";
  const Job job = run(create("replicate/canary", {{"text", name}}), WorkerOptions{});
  ASSERT_EQ(job.status, JobStatus::succeeded) << job.error.value_or("");
  for (const Json& piece : job.output) said += piece.get<std::string>();
  EXPECT_EQ(said, "hello there, " + name);
  EXPECT_EQ(job.output.size(), 100u);
}

TEST_F(PredictionJob, EndsWithinAStepWhenItIsCanceled) {
  const Job job =
      create(kDev, {{"prompt", "x"}, {"num_inference_steps", 50}, {"num_outputs", 4}, {"width", 192}, {"height", 192}});
  const Job next = create("replicate/canary", {{"text", "x"}});
  Worker worker(options(), store_);
  const base::CancelToken never;
  std::thread thread([&] { worker.run_one(never); });
  ASSERT_TRUE(wait_until([&] { return find(job).progress.stage == "denoise"; }));
  const auto canceled_at = std::chrono::steady_clock::now();
  EXPECT_EQ(store_.jobs->cancel(job.id).status, JobStatus::canceled);
  thread.join();
  EXPECT_LT(std::chrono::steady_clock::now() - canceled_at, 5s);  // a beat of the heart and a step, on a busy machine
  EXPECT_EQ(find(job).status, JobStatus::canceled);
  EXPECT_TRUE(find(job).output.is_null());
  EXPECT_TRUE(worker.run_one(never));
  EXPECT_EQ(find(next).status, JobStatus::succeeded);
}

TEST_F(PredictionJob, AWorkerThatLeavesGivesItsJobBack) {
  const Job job =
      create(kDev, {{"prompt", "x"}, {"num_inference_steps", 50}, {"num_outputs", 4}, {"width", 192}, {"height", 192}});
  Worker worker(options(), store_);
  base::CancelToken stop;
  std::thread thread([&] { worker.run(stop); });
  ASSERT_TRUE(wait_until([&] { return find(job).progress.stage == "denoise"; }));
  stop.request();
  thread.join();
  EXPECT_EQ(find(job).status, JobStatus::starting);
  EXPECT_EQ(find(job).worker, "");
  EXPECT_TRUE(store_.workers->list(0).empty());
}

TEST_F(PredictionJob, TheSafetyCheckDecidesBeforeAnythingIsStored) {
  const Json input = {{"prompt", "x"}, {"num_inference_steps", 1}, {"disable_safety_checker", true}};
  WorkerOptions strict = options();
  strict.safety.command = "sh -c 'test -s \"$1\" && test \"$CALOTYPE_PROMPT\" = x && echo too red && exit 3' judge";
  const Job refused = run(create(kSchnell, input), strict);
  EXPECT_EQ(refused.status, JobStatus::failed);
  EXPECT_EQ(refused.error.value_or(""), "too red");
  EXPECT_TRUE(store_.files->list(store::FilePurpose::output).items.empty());

  strict.safety.may_be_disabled = true;
  EXPECT_EQ(run(create(kSchnell, input), strict).status, JobStatus::succeeded);
  strict.safety.command = "sh -c 'test -s \"$1\"' judge";
  strict.safety.may_be_disabled = false;
  EXPECT_EQ(run(create(kSchnell, input), strict).status, JobStatus::succeeded);
  strict.safety.command = "/nowhere/judge";
  EXPECT_NE(run(create(kSchnell, input), strict).error.value_or("").find("cannot be run"), std::string::npos);
  strict.safety.command = "sleep 60 #";
  strict.safety.timeout = 300ms;
  EXPECT_NE(run(create(kSchnell, input), strict).error.value_or("").find("took too long"), std::string::npos);
}

TEST_F(PredictionJob, TheSafetyCheckMayBeAnEndpoint) {
  std::string verdict = R"({"allowed": false, "reason": "no discs"})";
  test::Loopback judge([&](const test::Asked&) { return test::Reply{.body = verdict}; });
  WorkerOptions strict = options();
  strict.safety.url = judge.url("/judge");
  const Json input = {{"prompt", "x"}, {"num_inference_steps", 1}};
  EXPECT_EQ(run(create(kSchnell, input), strict).error.value_or(""), "no discs");
  ASSERT_EQ(judge.asked().size(), 1u);
  EXPECT_EQ(judge.asked()[0].headers.at("content-type"), "image/webp");
  verdict = R"({"allowed": true})";
  EXPECT_EQ(run(create(kSchnell, input), strict).status, JobStatus::succeeded);
  verdict = "oops";
  EXPECT_NE(run(create(kSchnell, input), strict).error.value_or("").find("no verdict"), std::string::npos);
}

TEST_F(PredictionJob, ModelsStayLoadedBetweenJobs) {
  Worker worker(options(), store_);
  const base::CancelToken never;
  const Job first = create(kSchnell, {{"prompt", "x"}, {"num_inference_steps", 1}, {"seed", 3}});
  const Job second = create(kDev, {{"prompt", "x"}, {"num_inference_steps", 1}, {"seed", 3}, {"guidance", 3.5}});
  ASSERT_TRUE(worker.run_one(never));
  ASSERT_TRUE(worker.run_one(never));
  EXPECT_EQ(find(first).status, JobStatus::succeeded);
  EXPECT_EQ(file_bytes(find(first).output[0]), file_bytes(find(second).output[0]));
}

}  // namespace
}  // namespace calotype::worker
