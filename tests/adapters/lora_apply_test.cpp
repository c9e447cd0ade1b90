// Strictness of attaching, and pictures with adapters against diffusers 0.42 (tools/reference/adapters.py).
#include "adapters/lora_apply.h"

#include <unistd.h>

#include <fstream>

#include "adapters.h"
#include "pipeline/text_to_image.h"

namespace calotype::adapters {
namespace {

using base::ErrorKind;
using pipeline::GenerateOptions;
using pipeline::GenerateResult;
using pipeline::TextToImage;
using test::Golden;
using test::TemporaryFolder;

bool nothing_attached(const weights::AdapterSlots& slots) {
  return std::ranges::all_of(slots, [](const auto& entry) { return entry.second->corrections.empty(); });
}

TEST(LoraApply, CountsStoredLayers) {
  const std::pair<const char*, int> cases[] = {{"peft", 2 * 14 + 3 * 6}, {"kohya", 29}, {"xlabs", 14}};
  for (const auto& [layout, layers] : cases) {
    const Applied done = attach(read_adapter(adapter_path(layout)), 1, slots_of_m1(), at::kCPU);
    EXPECT_EQ(done.applied, layers) << layout;
    EXPECT_EQ(done.total, layers) << layout;
    EXPECT_TRUE(done.unmatched.empty()) << layout;
  }
}

TEST(LoraApply, AdaptersAddUpAndGoAwayAgain) {
  const weights::AdapterSlots slots = slots_of_m1();
  const Adapter a = read_adapter(adapter_path("peft")), b = read_adapter(adapter_path("kohya_shared"));
  attach(a, 0.5, slots, at::kCPU);
  attach(b, -2, slots, at::kCPU);
  const Tensors alone_a = differences(a), alone_b = differences(b);
  for (const auto& [layer, delta] : alone_a)
    test::expect_close(difference(*slots.at(layer)), 0.5 * delta - 2 * alone_b.at(layer), {.relative = 1e-6}, layer);
  detach_all(slots);
  EXPECT_TRUE(nothing_attached(slots));
}

TEST(LoraApply, AdaptersOfOtherModelsAreRefusedWhole) {
  const weights::AdapterSlots slots = slots_of_m1();
  const Adapter sound = read_adapter(adapter_path("peft"));
  const auto expect = [&](const std::function<void(Adapter&)>& change, const std::vector<std::string>& words) {
    Adapter adapter = sound;
    change(adapter);
    const std::string message = refusal(ErrorKind::conflict, [&] { attach(adapter, 1, slots, at::kCPU); });
    for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
    EXPECT_NE(message.find(adapter.where), std::string::npos) << message;
    EXPECT_TRUE(nothing_attached(slots)) << message;
  };
  expect(
      [](Adapter& a) {
        for (AdapterPair& pair : a.pairs) pair.down_RI = at::ones({4, 1280});
      },
      {"none of 46 adapter layers belongs to this model", "input 1280", "another model family"});
  expect(
      [](Adapter& a) {
        a.pairs.back().down_RI = at::ones({4, 21});
      },
      {sound.pairs.back().stored_name, "[4, 21]", "expected [4, "});
  expect(
      [](Adapter& a) {
        a.pairs.back().up_OR = at::ones({19, 4});
      },
      {sound.pairs.back().stored_name, "[19, 4]", "expected [", ", 4]"});
  expect([](Adapter& a) { a.pairs.front().layer = "double_blocks.2.img_attn.proj"; },
         {"1 of 46 adapter layers belong to blocks", sound.pairs.front().stored_name});
  expect([](Adapter& a) { a.pairs.front().layer = "single_blocks.57.linear2"; }, {"1 of 46"});
  refusal(ErrorKind::bad_input, [&] { attach(sound, NAN, slots, at::kCPU); });
}

// schnell is dev without its guidance embedding: that part of an adapter made for dev has no place there.
TEST(LoraApply, GuidanceLayersAreSkippedWhereThereAreNone) {
  weights::AdapterSlots slots = slots_of_m1();
  slots.erase("guidance_in.in_layer");
  slots.erase("guidance_in.out_layer");
  const Applied done = attach(read_adapter(adapter_path("ends")), 1, slots, at::kCPU);
  EXPECT_EQ(done.applied, 8);
  EXPECT_EQ(done.total, 10);
  ASSERT_EQ(done.unmatched.size(), 2u);
  EXPECT_EQ(done.unmatched[0], "transformer.time_text_embed.guidance_embedder.linear_1");
}

// ---------------------------------------------------------------------------------------------------------- pictures

GenerateOptions request(const Golden& g) {
  const auto& s = g.settings();
  return {.prompt = s.at("prompts").at(0),
          .width = s.at("width").get<int>(),
          .height = s.at("height").get<int>(),
          .steps = s.at("num_inference_steps"),
          .guidance = s.at("guidance_scale").get<double>(),
          .seed = s.at("seeds").at(0).get<uint64_t>(),
          .max_sequence_length = s.at("max_sequence_length")};
}

at::Tensor tensor_of(const GenerateResult& result) {
  const image::RgbImage& picture = result.pictures.at(0).image;
  return at::tensor(at::ArrayRef<uint8_t>(picture.pixels), at::kByte)
             .view({picture.height, picture.width, 3})
             .to(at::kDouble) /
         255;
}

TextToImage m1_dev() {
  return TextToImage(pipeline::open_bundle({.model = test::golden_path("models/m1_dev")}), {.dtype = at::kFloat});
}

// One model, another list for each picture: what is left over from the last would show. Pictures of these adapters
// differ by 13 to 23 dB; two correct f32 programs by rounding at 8 bits.
TEST(LoraPictures, AreThoseOfDiffusers) {
  const Golden want("training/adapters");
  TextToImage flux = m1_dev();
  struct Case {
    std::vector<LoraChoice> loras;
    std::string run;
  };
  const Case cases[] = {{{}, "base"},
                        {{{adapter_path("peft")}}, "peft"},
                        {{{adapter_path("kohya")}}, "peft"},
                        {{{adapter_path("peft"), 0.5}}, "peft_half"},
                        {{{adapter_path("comfy")}}, "peft"},
                        {{{adapter_path("xlabs")}}, "xlabs"},
                        {{{adapter_path("kohya_shared")}}, "kohya_shared"},
                        {{{adapter_path("comfy"), 0.25}, {adapter_path("kohya"), 0.25}}, "peft_half"},
                        {{{adapter_path("kohya"), 0}}, "base"},
                        {{}, "base"}};
  for (const Case& c : cases) {
    GenerateOptions options = request(want);
    options.loras = c.loras;
    const GenerateResult result = flux.generate(options);
    const at::Tensor reference = want.at(c.run + ".image.u8")[0].to(at::kDouble) / 255;
    EXPECT_GE(test::psnr(tensor_of(result), reference), 50)
        << c.run << " by " << (c.loras.empty() ? "" : c.loras[0].path.filename().string());
    ASSERT_EQ(result.loras.size(), c.loras.size());
    for (const AppliedLora& lora : result.loras) EXPECT_TRUE(lora.total > 0 && lora.applied == lora.total);
  }
}

TEST(LoraPictures, LayersOutsideTheBlocks) {
  const Golden want("training/adapter_ends_picture");
  TextToImage flux = m1_dev();
  for (const char* layout : {"ends", "ends_kohya"}) {
    GenerateOptions options = request(want);
    options.loras = {{adapter_path(layout)}};
    EXPECT_GE(test::psnr(tensor_of(flux.generate(options)), want.at("image.u8")[0].to(at::kDouble) / 255), 50)
        << layout;
  }
}

TEST(LoraPictures, AFileThatChangesIsReadAgain) {
  const TemporaryFolder folder;
  const auto path = folder / "a.safetensors";
  TextToImage flux = m1_dev();
  const Golden want("training/adapters");
  GenerateOptions options = request(want);
  options.loras = {{path}};
  for (const char* layout : {"xlabs", "kohya_shared"}) {
    std::filesystem::copy_file(adapter_path(layout), path, std::filesystem::copy_options::overwrite_existing);
    const at::Tensor reference = want.at(std::string(layout) + ".image.u8")[0].to(at::kDouble) / 255;
    EXPECT_GE(test::psnr(tensor_of(flux.generate(options)), reference), 50) << layout;
  }
}

TEST(LoraPictures, WrongFilesAreRefusedBeforeAnythingIsLoaded) {
  TextToImage flux = m1_dev();
  GenerateOptions options = request(Golden("training/adapters"));
  options.loras = {{test::golden_path("training/lora_m2_schnell.safetensors")}};
  std::vector<std::string> stages;
  pipeline::GenerateHooks hooks{.progress = [&](const base::ProgressEvent& r) { stages.emplace_back(r.stage); }};
  EXPECT_THROW(flux.generate(options, hooks), base::Error);
  EXPECT_TRUE(stages.empty());
  for (const double scale : {10.5, -11.0, double{NAN}}) {
    options.loras = {{adapter_path("peft"), scale}};
    EXPECT_NE(refusal(ErrorKind::bad_input, [&] { flux.generate(options); }).find("-10 to 10"), std::string::npos);
  }
  options.loras = {};
  EXPECT_EQ(flux.generate(options).pictures.size(), 1u);
}

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// Ranks of 100 make each adapter about 1.3 MB: keeping one in five of them would exceed the bound.
TEST(LoraPictures, HundredSwapsLeaveNothingBehind) {
  const TemporaryFolder folder;
  Adapter large = read_adapter(adapter_path("kohya_shared"));
  for (const char* name : {"a", "b", "c"}) {
    for (AdapterPair& pair : large.pairs) {
      pair.down_RI = at::randn({100, pair.down_RI.size(1)}) * 0.01;
      pair.up_OR = at::randn({pair.up_OR.size(0), 100}) * 0.01;
    }
    write_adapter(folder / name, large.pairs, {}, at::kFloat);
  }
  ASSERT_GT(std::filesystem::file_size(folder / "a"), 1'000'000u);
  TextToImage flux = m1_dev();
  GenerateOptions options = request(Golden("training/adapters"));
  options.steps = 1;
  const auto base = flux.generate(options).pictures.at(0).image.pixels;
  int64_t before = 0;
  for (int swap = 0; swap < 100; ++swap) {
    options.loras = {{folder / std::string(1, static_cast<char>('a' + swap % 3))}};
    EXPECT_NE(flux.generate(options).pictures.at(0).image.pixels, base);
    if (swap == 9) before = resident_bytes();
  }
  EXPECT_LT(resident_bytes() - before, 25'000'000);
  options.loras = {};
  EXPECT_EQ(flux.generate(options).pictures.at(0).image.pixels, base);
}

}  // namespace
}  // namespace calotype::adapters
