// Adapter files of every dialect against diffusers 0.42 and peft 0.21 (tools/reference/adapters.py, adapter_ends.py):
// weight differences to 1e-6, because f32 products of rank 4 round once or twice. Files written by us are read by
// diffusers in tools/reference/check_adapter.py.
#include "adapters/lora_file.h"

#include "adapters.h"
#include "adapters/lora_metadata.h"
#include "weights/key_map.h"

namespace calotype::adapters {
namespace {

using base::ErrorKind;
using test::Golden;
using test::TemporaryFolder;

TEST(LoraFile, DifferencesAreThoseOfPeft) {
  const Golden want("training/adapters");
  for (const char* layout : {"peft", "kohya", "comfy"}) {
    const Tensors got = differences(read_adapter(adapter_path(layout)));
    for (const std::string module : {"transformer_blocks.1.attn.to_k", "transformer_blocks.0.ff_context.net.2",
                                     "single_transformer_blocks.2.proj_mlp"}) {
      const auto key = weights::canonical_key(module + ".weight", {}).value();
      const std::string layer = key.name.substr(0, key.name.rfind('.'));
      const at::Tensor& all = got.at(layer);
      const Rows rows = rows_of(key.part, key.parts, {.in = all.size(1), .out = all.size(0)});
      test::expect_close(all.narrow(0, rows.first, rows.count), want.at("delta." + module), {.relative = 1e-6},
                         std::string(layout) + " " + module);
    }
  }
}

TEST(LoraFile, EveryLayoutOfOneAdapterIsTheSame) {
  const Tensors want = differences(read_adapter(adapter_path("peft")));
  EXPECT_EQ(want.size(), 2u * 10 + 3u * 3);  // 10 linear layers in a double block, 3 in a single one
  for (const char* layout : {"kohya", "comfy"})
    expect_same_differences(differences(read_adapter(adapter_path(layout))), want, layout);
  // XLabs: the attention part alone. What it has of linear1 are q, k and v.
  const Tensors xlabs = differences(read_adapter(adapter_path("xlabs")));
  EXPECT_EQ(xlabs.size(), 2u * 4 + 3u * 2);
  for (const auto& [layer, delta] : xlabs) {
    const int64_t rows = layer.ends_with("linear1") ? 3 * delta.size(1) : delta.size(0);
    test::expect_close(delta.narrow(0, 0, rows), want.at(layer).narrow(0, 0, rows), {.relative = 1e-6}, layer);
    EXPECT_EQ(delta.narrow(0, rows, delta.size(0) - rows).abs().sum().item<double>(), 0) << layer;
  }
}

/// A golden adapter with its names changed; `rename` returns nothing to leave a tensor out.
std::filesystem::path renamed(const TemporaryFolder& folder, const std::string& layout,
                              const std::function<std::optional<std::string>(const std::string&)>& rename,
                              const Tensors& more = {}) {
  Tensors out = more;
  for (const auto& [name, tensor] : weights::read_tensors(adapter_path(layout)))
    if (const auto other = rename(name)) out[*other] = tensor;
  const auto path = folder / "renamed.safetensors";
  weights::write_tensors(path, out);
  return path;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(LoraFile, DialectsThatDifferInNamesOnly) {
  const TemporaryFolder folder;
  const Tensors want = differences(read_adapter(adapter_path("peft")));
  const auto fal = renamed(
      folder, "comfy", [](const std::string& name) { return replaced(name, "diffusion_model.", "base_model.model."); });
  expect_same_differences(differences(read_adapter(fal)), want, "fal");
  const auto comfy = renamed(folder, "comfy", [](const std::string& name) {
    return replaced(replaced(name, "lora_A", "lora_down"), "lora_B", "lora_up");
  });
  expect_same_differences(differences(read_adapter(comfy)), want, "ComfyUI with down and up");
  Tensors alphas;
  const auto one_trainer = [&](const std::string& name) -> std::optional<std::string> {
    const size_t role = name.find(".lora_");
    std::string stem = replaced(name.substr(0, role), "transformer.", "lora_transformer_");
    std::ranges::replace(stem, '.', '_');
    alphas[stem + ".alpha"] = at::tensor(6.0F);
    return stem + replaced(replaced(name.substr(role), "lora_A", "lora_down"), "lora_B", "lora_up");
  };
  renamed(folder, "peft", one_trainer);
  expect_same_differences(differences(read_adapter(renamed(folder, "peft", one_trainer, alphas))), want, "OneTrainer");
}

TEST(LoraFile, ScaleIsAlphaOverRankOrOne) {
  const TemporaryFolder folder;
  const auto scale_of = [&](const Tensors& tensors, const std::map<std::string, std::string>& metadata = {}) {
    weights::write_tensors(folder / "a", tensors, metadata);
    return read_adapter(folder / "a").pairs.at(0).scale;
  };
  const std::string stem = "transformer.transformer_blocks.0.attn.to_q";
  Tensors pair = {{stem + ".lora_A.weight", at::ones({4, 20})}, {stem + ".lora_B.weight", at::ones({20, 4})}};
  EXPECT_EQ(scale_of(pair), 1);
  const auto with = [&](const std::string& fields) {
    return std::map<std::string, std::string>{{"lora_adapter_metadata", "{" + fields + "}"}};
  };
  EXPECT_EQ(scale_of(pair, with(R"("transformer.r": 4, "transformer.lora_alpha": 6)")), 1.5);
  EXPECT_EQ(scale_of(pair, with(R"("transformer.r": 16, "transformer.lora_alpha": 6,
                                   "transformer.rank_pattern": {"attn.to_q": 4}, "transformer.alpha_pattern": {})")),
            1.5);
  EXPECT_EQ(scale_of(pair, with(R"("transformer.r": 4, "transformer.lora_alpha": 6,
                                   "transformer.alpha_pattern": {"to_k": 9, "blocks.0.attn.to_q": 7,
                                                                 "^transformer_blocks\\.0\\.attn\\.to_q$": 2})")),
            0.5);  // "blocks.0" is no whole word of the name
  EXPECT_EQ(scale_of(pair, with(R"("transformer.r": 4, "transformer.lora_alpha": 6, "transformer.use_rslora": true)")),
            3);
  EXPECT_EQ(scale_of(pair, with(R"("text_encoder.r": 8, "text_encoder.lora_alpha": 6)")), 1);
  for (const at::Tensor& alpha : {at::tensor(2.0F), at::tensor({int64_t{2}}), at::tensor(2.0F).to(at::kBFloat16)}) {
    pair[stem + ".alpha"] = alpha;
    EXPECT_EQ(scale_of(pair), 0.5);
  }
}

// norm_out's halves are swapped between the layouts; both files hold the same adapter.
TEST(LoraFile, LayersOutsideTheBlocks) {
  const Adapter peft = read_adapter(adapter_path("ends")), kohya = read_adapter(adapter_path("ends_kohya"));
  EXPECT_EQ(peft.pairs.size(), 10u);
  expect_same_differences(differences(kohya), differences(peft), "kohya");
  EXPECT_EQ(peft.pairs.size(), static_cast<size_t>(peft.stored));
}

TEST(LoraFile, TextEncoderPartIsReportedAsIgnored) {
  const TemporaryFolder folder;
  const auto path = renamed(folder, "kohya", [](const std::string& name) { return name; },
                            {{"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", at::ones({4, 64})},
                             {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", at::ones({64, 4})},
                             {"bundle_emb.token.clip_l", at::ones({4})}});
  const Adapter adapter = read_adapter(path);
  EXPECT_EQ(adapter.stored, 30);
  const Applied done = attach(adapter, 1, slots_of_m1(), at::kCPU);
  EXPECT_EQ(done.applied, 29);
  EXPECT_EQ(done.total, 30);
  ASSERT_EQ(adapter.warnings.size(), 2u);
  EXPECT_NE(adapter.warnings[0].find("1 tensors"), std::string::npos) << adapter.warnings[0];
  EXPECT_NE(adapter.warnings[1].find("text encoder part ignored: 1 of 30"), std::string::npos) << adapter.warnings[1];
}

TEST(LoraFile, WrittenFilesAreReadBack) {
  const TemporaryFolder folder;
  for (const char* layout : {"peft", "kohya", "kohya_shared", "ends"}) {
    const Adapter adapter = read_adapter(adapter_path(layout));
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {  // the numbers are exact in all three
      write_adapter(folder / "a", adapter.pairs, {{"trigger", "TOK"}}, type);
      const Adapter again = read_adapter(folder / "a");
      expect_same_differences(differences(again), differences(adapter), layout);
      EXPECT_EQ(again.metadata.at("trigger"), "TOK");
      for (const auto& [name, tensor] : weights::read_tensors(folder / "a")) {
        EXPECT_EQ(tensor.scalar_type(), type) << name;
        EXPECT_TRUE(name.starts_with("transformer.") && name.ends_with(".weight")) << name;
      }
    }
  }
}

TEST(LoraFile, WritesTheTensorsThatDiffusersWrote) {
  const TemporaryFolder folder;
  for (const char* layout : {"peft", "ends"}) {
    write_adapter(folder / "a", read_adapter(adapter_path(layout)).pairs, {}, at::kFloat);
    const Tensors want = weights::read_tensors(adapter_path(layout)), got = weights::read_tensors(folder / "a");
    ASSERT_EQ(got.size(), want.size()) << layout;
    for (const auto& [name, tensor] : want) {
      ASSERT_TRUE(got.contains(name)) << name;
      EXPECT_TRUE(at::equal(got.at(name), tensor)) << name;
    }
    const auto field = [&](const std::filesystem::path& path, const char* name) {
      return nlohmann::json::parse(files::open_tensor_file(path).metadata.at(kPeftMetadata)).at(name);
    };
    for (const char* name :
         {"transformer.r", "transformer.lora_alpha", "transformer.rank_pattern", "transformer.alpha_pattern"})
      EXPECT_EQ(field(folder / "a", name), field(adapter_path(layout), name)) << layout << " " << name;
  }
}

TEST(LoraFile, NeverSavesWhatIsNotFinite) {
  const TemporaryFolder folder;
  Adapter adapter = read_adapter(adapter_path("peft"));
  adapter.pairs[3].up_OR[0][0] = 1e6;  // finite in f32 and bf16
  EXPECT_NO_THROW(write_adapter(folder / "a", adapter.pairs, {}, at::kBFloat16));
  const std::string message =
      refusal(ErrorKind::internal, [&] { write_adapter(folder / "b", adapter.pairs, {}, at::kHalf); });
  EXPECT_NE(message.find("infinite"), std::string::npos) << message;
  EXPECT_FALSE(std::filesystem::exists(folder / "b"));
}

// --------------------------------------------------------------------------------------------------- hostile files

struct Hostile {
  std::string what;
  ErrorKind kind;
  std::function<void(Tensors&)> change;  // of a sound adapter of one pair
  std::vector<std::string> words;        // of the message
};

const std::string kStem = "lora_unet_double_blocks_0_img_attn_proj";

std::vector<Hostile> hostile_files() {
  const auto put = [](const std::string& end, const at::Tensor& tensor) {
    return [=](Tensors& t) { t[kStem + end] = tensor; };
  };
  const std::string down = ".lora_down.weight", up = ".lora_up.weight";
  at::Tensor nan = at::ones({4, 20}), infinite = at::ones({20, 4}).to(at::kHalf);
  nan[3][19] = NAN;
  infinite[0][0] = INFINITY;
  using enum ErrorKind;
  return {
      {"NaN", corrupt_file, put(down, nan), {kStem + down, "NaN"}},
      {"infinite", corrupt_file, put(up, infinite), {kStem + up, "infinite"}},
      {"ranks differ", corrupt_file, put(up, at::ones({20, 3})), {kStem, "[20, 3]", "[4, 20]", "rank 4", "rank 3"}},
      {"rank 0",
       corrupt_file,
       [=](Tensors& t) {
         t[kStem + down] = at::empty({0, 20}), t[kStem + up] = at::empty({20, 0});
       },
       {kStem, "rank 0"}},
      {"rank of a million",
       corrupt_file,
       [=](Tensors& t) {
         t[kStem + down] = at::ones({1'000'000, 1}), t[kStem + up] = at::ones({1, 1'000'000});
       },
       {kStem, "rank 1000000"}},
      {"no up", corrupt_file, [=](Tensors& t) { t.erase(kStem + up); }, {kStem, "no up matrix", "incomplete"}},
      {"no down", corrupt_file, [=](Tensors& t) { t.erase(kStem + down); }, {kStem, "no down matrix"}},
      {"alpha of an unknown layer", unsupported, put("x.alpha", at::tensor(1.0F)), {"not layers of a FLUX.1"}},
      {"alpha without its layer",
       corrupt_file,
       [](Tensors& t) { t["lora_unet_double_blocks_1_img_attn_proj.alpha"] = at::tensor(1.0F); },
       {"double_blocks_1", "no matrices"}},
      {"a vector", corrupt_file, put(down, at::ones({80})), {kStem, "[80]"}},
      {"a picture", corrupt_file, put(up, at::ones({20, 4, 1, 1})), {kStem, "[20, 4, 1, 1]"}},
      {"no columns", corrupt_file, put(down, at::empty({4, 0})), {kStem, "[4, 0]"}},
      {"whole numbers", corrupt_file, put(down, at::ones({4, 20}, at::kInt)), {kStem + down, "i32"}},
      {"two alphas", corrupt_file, put(".alpha", at::ones({2})), {kStem + ".alpha", "[2]"}},
      {"alpha NaN", corrupt_file, put(".alpha", at::tensor(NAN)), {kStem + ".alpha", "finite"}},
      {"a layer of another model",
       unsupported,
       [](Tensors& t) {
         t["lora_unet_down_blocks_1_x.lora_down.weight"] = at::ones({4, 4});
       },
       {"1 of 2", "lora_unet_down_blocks_1_x", "not applied in part"}},
      {"LoKr", unsupported, put(".lokr_w1", at::ones({2, 2})), {kStem + ".lokr_w1", "LoKr adapter", "not supported"}},
      {"DoRA", unsupported, put(".dora_scale", at::ones({20, 1})), {"DoRA"}},
      {"bias", unsupported, put(".lora_up.bias", at::ones({20})), {"biases"}},
      {"one layer twice",
       corrupt_file,
       [](Tensors& t) {
         t["diffusion_model.double_blocks.0.img_attn.proj.lora_A.weight"] = at::ones({4, 20});
         t["diffusion_model.double_blocks.0.img_attn.proj.lora_B.weight"] = at::ones({20, 4});
       },
       {kStem, "diffusion_model.double_blocks.0.img_attn.proj", "same layer"}},
      {"one tensor twice", corrupt_file, put(".lora_A.weight", at::ones({4, 20})), {kStem, "same meaning"}},
      {"odd halves",
       corrupt_file,
       [](Tensors& t) {
         t["transformer.norm_out.linear.lora_A.weight"] = at::ones({4, 20});
         t["transformer.norm_out.linear.lora_B.weight"] = at::ones({41, 4});
       },
       {"norm_out", "41 rows"}},
  };
}

TEST(LoraFile, HostileFilesAreRefusedInOneSentence) {
  const TemporaryFolder folder;
  const Tensors sound = {{kStem + ".lora_down.weight", at::ones({4, 20})},
                         {kStem + ".lora_up.weight", at::ones({20, 4})}};
  weights::write_tensors(folder / "a.safetensors", sound);
  EXPECT_EQ(read_adapter(folder / "a.safetensors").pairs.size(), 1u);
  for (const Hostile& h : hostile_files()) {
    SCOPED_TRACE(h.what);
    Tensors tensors = sound;
    h.change(tensors);
    weights::write_tensors(folder / "a.safetensors", tensors);
    const std::string message = refusal(h.kind, [&] { read_adapter(folder / "a.safetensors"); });
    EXPECT_NE(message.find("a.safetensors"), std::string::npos) << message;
    for (const std::string& word : h.words) EXPECT_NE(message.find(word), std::string::npos) << message;
  }
}

TEST(LoraFile, HostileMetadataIsRefused) {
  const TemporaryFolder folder;
  const std::string stem = "transformer.transformer_blocks.0.attn.to_q";
  const Tensors pair = {{stem + ".lora_A.weight", at::ones({4, 20})}, {stem + ".lora_B.weight", at::ones({20, 4})}};
  const std::pair<std::string, ErrorKind> cases[] = {
      {"{", ErrorKind::corrupt_file},
      {"[]", ErrorKind::corrupt_file},
      {R"({"transformer.r": "4"})", ErrorKind::corrupt_file},
      {R"({"transformer.r": 8, "transformer.lora_alpha": 8})", ErrorKind::corrupt_file},  // the matrices have rank 4
      {R"({"transformer.r": 4, "transformer.lora_alpha": null})", ErrorKind::corrupt_file},
      {R"({"transformer.r": 4, "transformer.alpha_pattern": [1]})", ErrorKind::corrupt_file},
      {R"({"transformer.r": 4, "transformer.alpha_pattern": {"to_q": {}}})", ErrorKind::corrupt_file},
      {R"({"transformer.r": 4, "transformer.lora_alpha": 4, "transformer.alpha_pattern": {"(x+x+)+y": 1}})",
       ErrorKind::unsupported},
      {std::string(100'000, '['), ErrorKind::corrupt_file},
  };
  for (const auto& [text, kind] : cases) {
    weights::write_tensors(folder / "a", pair, {{"lora_adapter_metadata", text}});
    const std::string message = refusal(kind, [&] { read_adapter(folder / "a"); });
    EXPECT_NE(message.find("lora_adapter_metadata"), std::string::npos) << message;
  }
}

TEST(LoraFile, FilesThatAreNoAdapterForFlux) {
  const TemporaryFolder folder;
  const auto expect = [&](const std::filesystem::path& path, ErrorKind kind, const std::string& words) {
    const std::string message = refusal(kind, [&] { read_adapter(path); });
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  expect(test::golden_path("layouts/m1_dev/flux1.safetensors"), ErrorKind::bad_input, "none of a LoRA");
  expect(folder / "absent", ErrorKind::not_found, "absent");
  const std::string sdxl = "lora_unet_input_blocks_4_1_proj_in", text = "lora_te1_text_model_encoder_layers_0_mlp_fc1";
  for (const std::string& stem : {sdxl, text})
    weights::write_tensors(folder / stem, {{stem + ".lora_down.weight", at::ones({4, 640})},
                                           {stem + ".lora_up.weight", at::ones({640, 4})}});
  expect(folder / sdxl, ErrorKind::bad_input,
         "none of 1 adapter layers belongs to a FLUX.1 transformer (first: " + sdxl);
  expect(folder / text, ErrorKind::unsupported, "belong to text encoders");
}

}  // namespace
}  // namespace calotype::adapters
