// The whole path against diffusers 0.42 FluxPipeline (tools/reference/pipelines.py), f32: at least 50 dB, and far more
// is seen, because both compute the same sums in another order.
#include "pipeline/text_to_image.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "base/data_folder.h"
#include "base/error.h"
#include "flux/latents.h"
#include "support/golden.h"

namespace calotype::pipeline {
namespace {

using test::Golden;
using test::golden_path;
using weights::Component;

GenerateOptions options_of(const Golden& g) {
  const auto& s = g.settings();
  GenerateOptions o;
  o.prompt = s.at("prompts").at(0);
  o.width = s.at("width").get<int>();
  o.height = s.at("height").get<int>();
  o.steps = s.at("num_inference_steps");
  if (s.contains("guidance_scale") && s["guidance_scale"].is_number()) o.guidance = s["guidance_scale"].get<double>();
  o.seed = s.at("seeds").at(0).get<uint64_t>();
  o.max_sequence_length = s.at("max_sequence_length");
  if (s.contains("true_cfg_scale") && s["true_cfg_scale"].is_number()) o.true_cfg = s["true_cfg_scale"];
  if (s.contains("negative_prompt") && s["negative_prompt"].is_string()) o.negative_prompt = s["negative_prompt"];
  return o;
}

at::Tensor tensor_of(const image::RgbImage& picture) {
  return at::tensor(at::ArrayRef<uint8_t>(picture.pixels), at::kByte)
             .view({picture.height, picture.width, 3})
             .to(at::kDouble) /
         255;
}

at::Tensor reference_picture(const Golden& g, int64_t i, const std::string& key = "image.u8") {
  return g.at(key)[i].to(at::kDouble) / 255;
}

class Pipeline : public testing::TestWithParam<const char*> {};

TEST_P(Pipeline, PictureMatchesDiffusers) {
  const Golden g(GetParam());
  TextToImage flux(open_bundle({.model = golden_path(std::string("models/") + GetParam())}), {.dtype = at::kFloat});
  GenerateOptions options = options_of(g);
  const auto& prompts = g.settings().at("prompts");
  for (size_t i = 0; i < prompts.size(); ++i) {
    options.prompt = prompts[i];
    options.seed = g.settings()["seeds"][i].get<uint64_t>();
    const GenerateResult result = flux.generate(options);
    ASSERT_EQ(result.pictures.size(), 1u);
    EXPECT_GE(test::psnr(tensor_of(result.pictures[0].image), reference_picture(g, static_cast<int64_t>(i))), 50) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Pipeline, testing::Values("m1_dev", "m2_schnell", "m3_schnell", "m4_dev"));

struct Layout {
  const char* name;
  ModelPaths paths;
};

/// The same weights in the files that other programs write.
std::vector<Layout> layouts(const std::string& model) {
  const auto layout = golden_path("layouts/" + model), folder = golden_path("models/" + model);
  const auto ae = golden_path("layouts/ae.safetensors");
  const auto clip = folder / "text_encoder", t5 = folder / "text_encoder_2";
  // Small vocabularies of their own: files in one piece take the program's tokenizers, which do not fit these models.
  return {{"BFL", {.transformer = layout / "flux1.safetensors", .vae = ae, .clip = clip, .t5 = t5}},
          {"ComfyUI", {.model = layout / "all_in_one.safetensors", .clip = clip, .t5 = t5}},
          {"GGUF", {.transformer = layout / "flux1-f16.gguf", .vae = ae, .clip = clip, .t5 = t5}},
          {"swapped options", {.transformer = t5, .vae = clip, .clip = layout / "flux1.safetensors", .t5 = ae}}};
}

TEST(Layouts, GiveTheReferencePicture) {
  for (const std::string model : {"m1_dev", "m3_schnell"}) {
    const Golden g(model), want("layouts/" + model + "/references");
    for (const Layout& layout : layouts(model)) {
      TextToImage flux(open_bundle(layout.paths), {.dtype = at::kFloat});
      const GenerateResult result = flux.generate(options_of(g));
      EXPECT_GE(test::psnr(tensor_of(result.pictures[0].image), reference_picture(want, 0)), 50)
          << model << " as " << layout.name;
    }
  }
}

TEST(Layouts, GgufT5AndSeparateClipAreRead) {
  const auto bundle = open_partial_bundle({.t5 = golden_path("layouts/m1_dev/t5-f16.gguf")});
  const auto folder = open_bundle({.model = golden_path("models/m1_dev")});
  const text::T5Encoder a(bundle.part(Component::t5), {}), b(folder.part(Component::t5), {});
  const at::Tensor ids = Golden("m1_dev").at("t5.ids");
  test::expect_close(a.encode(ids), b.encode(ids), {.relative = 1e-6});
}

TEST(Layouts, Fp8FilesGiveTheirDequantisedPicture) {
  for (const std::string model : {"m1_dev", "m3_schnell"}) {
    const Golden g(model), want("layouts/" + model + "/references");
    for (const std::string kind : {"fp8_scaled", "fp8_plain"}) {
      const auto folder = golden_path("models/" + model);
      TextToImage flux(open_bundle({.transformer = golden_path("layouts/" + model + "/flux1-" + kind + ".safetensors"),
                                    .vae = golden_path("layouts/ae.safetensors"),
                                    .clip = folder / "text_encoder",
                                    .t5 = folder / "text_encoder_2"}),
                       {.dtype = at::kFloat});
      const GenerateResult result = flux.generate(options_of(g));
      EXPECT_GE(test::psnr(tensor_of(result.pictures[0].image), reference_picture(want, 0, kind + ".image.u8")), 50)
          << model << " " << kind;
    }
  }
}

/// tools/reference/start_pictures.py
class FromAPicture : public testing::TestWithParam<const char*> {
 protected:
  /// Bytes [H, W] or [H, W, 3].
  std::shared_ptr<const image::RgbImage> picture(const std::string& key) const {
    at::Tensor bytes = golden_.at(std::string(GetParam()) + key).to(at::kByte);
    if (bytes.dim() == 2) bytes = bytes.unsqueeze(2).expand({-1, -1, 3});
    bytes = bytes.contiguous();
    const auto* pixels = bytes.const_data_ptr<uint8_t>();
    return std::make_shared<const image::RgbImage>(
        image::RgbImage{.width = static_cast<int>(bytes.size(1)),
                        .height = static_cast<int>(bytes.size(0)),
                        .pixels = std::vector<uint8_t>(pixels, pixels + bytes.numel())});
  }
  GenerateOptions options() const {
    const auto& request = golden_.settings().at("requests").at(GetParam());
    return {.prompt = golden_.settings().at("prompt"),
            .width = request.at("width").get<int>(),
            .height = request.at("height").get<int>(),
            .steps = request.at("num_inference_steps"),
            .seed = golden_.settings().at("seed").get<uint64_t>(),
            .max_sequence_length = request.at("max_sequence_length"),
            .start = picture(".start.u8"),
            .strength = request.at("strength")};
  }

  const Golden golden_{"start_pictures"};
  TextToImage flux_{open_bundle({.model = golden_path(std::string("models/") + GetParam())}), {.dtype = at::kFloat}};
};

TEST_P(FromAPicture, IsChangedAsDiffusersDoes) {
  int steps = 0;
  const GenerateResult result = flux_.generate(options(), {.progress = [&](const base::ProgressEvent& event) {
                                                 if (event.stage == "denoise") steps = static_cast<int>(event.total);
                                               }});
  const at::Tensor want = golden_.at(std::string(GetParam()) + ".image.u8").to(at::kDouble) / 255;
  EXPECT_GE(test::psnr(tensor_of(result.pictures[0].image), want), 50);
  EXPECT_EQ(steps, 3);  // 60 % of 5, 75 % of 4
}

TEST_P(FromAPicture, IsDrawnAnewInsideAMask) {
  GenerateOptions masked = options();
  masked.mask = picture(".mask.u8");
  at::Tensor latents;
  const GenerateResult result =
      flux_.generate(masked, {.latents = [&](const Latents& finished) { latents = finished.latents_BChw; }});
  test::expect_close(flux::pack(latents)[0], golden_.at(std::string(GetParam()) + ".inpainted"), {.relative = 1e-4});
  const auto &got = result.pictures[0].image.pixels, &start = masked.start->pixels;
  int kept = 0, changed = 0, marked = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const bool drawn = masked.mask->pixels[i] != 0;
    marked += drawn;
    (drawn ? changed : kept) += drawn == (got[i] != start[i]);
  }
  EXPECT_EQ(kept + marked, static_cast<int>(got.size()));  // to the last bit
  EXPECT_GT(changed, marked / 2);
}

TEST_P(FromAPicture, MasksMustFit) {
  const auto refusal = [&](const GenerateOptions& asked) {
    try {
      flux_.checked(asked);
    } catch (const base::Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  GenerateOptions masked = options();
  masked.mask = std::make_shared<image::RgbImage>(
      image::RgbImage{.width = 8, .height = 8, .pixels = std::vector<uint8_t>(8 * 8 * 3, 255)});
  EXPECT_NE(refusal(masked).find("the mask has 8×8 pixels"), std::string::npos) << refusal(masked);
  image::RgbImage black = *masked.start;
  std::ranges::fill(black.pixels, 0);
  masked.mask = std::make_shared<image::RgbImage>(black);
  EXPECT_NE(refusal(masked).find("marks nothing"), std::string::npos) << refusal(masked);
  masked.start.reset();
  EXPECT_NE(refusal(masked).find("without the picture"), std::string::npos) << refusal(masked);
}

INSTANTIATE_TEST_SUITE_P(Models, FromAPicture, testing::Values("m1_dev", "m2_schnell"));

TEST(StartPicture, GivesItsShapeToTheResult) {
  const TextToImage flux(open_bundle({.model = golden_path("models/m1_dev")}), {});
  const auto picture = std::make_shared<const image::RgbImage>(
      image::RgbImage{.width = 40, .height = 10, .pixels = std::vector<uint8_t>(1200)});
  const GenerateResult result = flux.checked({.prompt = "x", .start = picture});
  EXPECT_NEAR(static_cast<double>(*result.used.width) / *result.used.height, 4, 0.1);
  EXPECT_EQ(flux.checked({.prompt = "x", .width = 32, .height = 32, .start = picture}).used.width, 32);
  for (const double strength : {0.0, -1.0, 1.1, std::nan("")})
    EXPECT_THROW(flux.checked({.prompt = "x", .start = picture, .strength = strength}), base::Error) << strength;
}

/// tools/reference/box.py. Latents are kept in f16, whose rounding is 3e-4 of them; eight steps of guided drawing carry
/// differences in the order of f32 sums to some 1e-4.
TEST(ModelInTheBox, DrawsTheReferencePictures) {
  const Golden g("box");
  const auto& request = g.settings().at("request");
  TextToImage flux(open_bundle({.model = base::model_in_the_box()}), {.dtype = at::kFloat});
  const auto& prompts = g.settings().at("prompts");
  for (size_t i = 0; i < prompts.size(); ++i) {
    at::Tensor got;
    const GenerateResult result = flux.generate({.prompt = prompts[i],
                                                 .width = request.at("width").get<int>(),
                                                 .height = request.at("height").get<int>(),
                                                 .steps = request.at("num_inference_steps"),
                                                 .guidance = request.at("guidance_scale").get<double>(),
                                                 .seed = i,
                                                 .max_sequence_length = request.at("max_sequence_length")},
                                                {.latents = [&](const Latents& latents) { got = latents.latents_BChw; }});
    test::expect_close(flux::pack(got)[0], g.at("latents." + std::to_string(i)), {.relative = 2e-3}, prompts[i]);
    if (i == 0) {
      EXPECT_GE(test::psnr(tensor_of(result.pictures[0].image), g.at("image.u8").to(at::kDouble) / 255), 45);
    }
  }
}

TEST(TextToImage, PictureDoesNotDependOnBatchOrThreads) {
  const Golden g("m1_dev");
  GenerateOptions options = options_of(g);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    TextToImage flux(open_bundle({.model = golden_path("models/m1_dev")}), {.dtype = dtype});
    options.count = 3;
    at::set_num_threads(2);
    const GenerateResult batch = flux.generate(options);
    options.count = 1;
    options.seed = *options_of(g).seed + 2;
    at::set_num_threads(1);
    const GenerateResult alone = flux.generate(options);
    at::set_num_threads(2);
    EXPECT_EQ(batch.pictures[2].seed, alone.pictures[0].seed);
    EXPECT_EQ(batch.pictures[2].image.pixels, alone.pictures[0].image.pixels);
    options.seed = options_of(g).seed;
  }
}

TEST(TextToImage, SaysWhatItChanged) {
  const TextToImage flux(open_bundle({.model = golden_path("models/m2_schnell")}), {});
  const GenerateResult result =
      flux.checked({.prompt = "x", .negative_prompt = "y", .width = 1001, .height = 64, .guidance = 3.0});
  EXPECT_EQ(result.used.width, 1000);
  EXPECT_EQ(result.used.steps, 4);
  EXPECT_EQ(result.used.max_sequence_length, 256);
  EXPECT_FALSE(result.used.guidance.has_value());
  EXPECT_LT(*result.used.seed, uint64_t{1} << 32);
  EXPECT_EQ(result.warnings.size(), 3u);  // rounded width, ignored guidance, ignored negative prompt
}

TEST(TextToImage, RefusesWhatCannotBeDrawn) {
  const TextToImage flux(open_bundle({.model = golden_path("models/m1_dev")}), {});
  const auto refused = [&](GenerateOptions o, const std::string& field) {
    try {
      flux.checked(o);
      ADD_FAILURE() << field << " was accepted";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.kind(), base::ErrorKind::bad_input);
      EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
    }
  };
  refused({.width = 0}, "width");
  refused({.height = -16}, "height");
  refused({.width = 65536}, "width");
  refused({.steps = -1}, "steps");
  refused({.steps = 100000}, "steps");
  refused({.guidance = std::nan("")}, "guidance");
  refused({.true_cfg = std::nan("")}, "true-cfg");
  refused({.count = 0}, "count");
  refused({.max_sequence_length = 4096}, "max-sequence-length");
}

TEST(TextToImage, LongPromptsAreReportedNotLost) {
  TextToImage flux(open_bundle({.model = golden_path("models/m1_dev")}), {});
  std::string prompt;
  for (int i = 0; i < 20'000; ++i) prompt += "word ";
  const GenerateResult result = flux.generate({.prompt = prompt, .width = 16, .height = 16, .steps = 1, .seed = 1});
  ASSERT_EQ(result.warnings.size(), 1u);
  EXPECT_NE(result.warnings[0].find("T5 tokens"), std::string::npos);
  for (const char* hostile :
       {"", "\x01\x02 control", "emoji 👩‍🚀 and “quotes” 漢字", "<lora:x:1> </s> <pad>"})
    EXPECT_EQ(flux.generate({.prompt = hostile, .width = 16, .height = 16, .steps = 1, .seed = 1}).pictures.size(), 1u);
  EXPECT_THROW(flux.generate({.prompt = "broken \xff", .width = 16, .height = 16, .steps = 1}), base::Error);
}

TEST(MemoryPlan, RefusesEarlyWithNumbersAndAdvice) {
  const auto bundle = open_bundle({.model = golden_path("models/m1_dev")});
  const MemoryPlan plan = plan_memory(bundle, {.width = 512, .height = 512}, 100'000'000);
  try {
    plan.refuse_if_too_large();
    FAIL() << plan.text();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.kind(), base::ErrorKind::out_of_memory);
    EXPECT_NE(std::string(error.what()).find("100 MB are free"), std::string::npos) << error.what();
  }
  EXPECT_TRUE(plan_memory(bundle, {.width = 4096, .height = 4096}, 2'000'000'000).tiled_decode);
  EXPECT_FALSE(plan_memory(bundle, {.width = 64, .height = 64}, 2'000'000'000).tiled_decode);
}

TEST(ModelBundle, NamesEachMissingPartAndWhatWasFound) {
  try {
    open_bundle({.model = golden_path("layouts/m1_dev/flux1.safetensors")});
    FAIL() << "a transformer alone was accepted";
  } catch (const base::Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(error.kind(), base::ErrorKind::not_found);
    for (const char* word : {"flux1.safetensors", "--vae", "--clip", "--t5", "transformer"})
      EXPECT_NE(text.find(word), std::string::npos) << text;
  }
}

TEST(ModelBundle, TwoFilesWithTheSamePartAreAConflict) {
  EXPECT_THROW(open_bundle({.model = golden_path("layouts/m1_dev")}), base::Error);
}

}  // namespace
}  // namespace calotype::pipeline
