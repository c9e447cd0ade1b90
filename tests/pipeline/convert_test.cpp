// Converted files against files of the same weights that diffusers, the gguf package and torch wrote:
// tests/golden/models and layouts (tools/reference/pipelines.py, layouts.py) and convert.json
// (tools/reference/convert.py). Moving numbers and rounding them to a type have one right result, so everything is
// compared bit for bit.
#include "pipeline/convert.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/safetensors.h"
#include "files/shard_index.h"
#include "pipeline/diffusers_config.h"
#include "pipeline/model_bundle.h"
#include "support/golden.h"
#include "weights/quant.h"

namespace calotype::pipeline {
namespace fs = std::filesystem;

using files::StoredTensor;
using files::TensorType;
using nlohmann::json;
using test::golden_path;
using test::TemporaryFolder;
using weights::Component;

namespace {

constexpr auto kReplace = ConvertOptions::Existing::replace;
const std::vector<std::string> kModels = {"m1_dev", "m2_schnell", "m3_schnell", "m4_dev"};

using Tensors = std::map<std::string, StoredTensor>;

/// The tensors of a checkpoint or of all shards that an index names.
Tensors read_tensors(const fs::path& path) {
  Tensors tensors;
  const auto add = [&](const files::TensorFile& file) {
    for (const StoredTensor& tensor : file.tensors) tensors[tensor.name] = tensor;
  };
  if (path.extension() == ".json")
    for (const files::TensorFile& file : files::open_shards(path)) add(file);
  else
    add(files::open_tensor_file(path));
  return tensors;
}

/// Names, types, shapes and bytes are equal.
void expect_same(const Tensors& got, const Tensors& want) {
  EXPECT_EQ(got.size(), want.size());
  for (const auto& [name, tensor] : want) {
    ASSERT_TRUE(got.contains(name)) << name;
    const StoredTensor& found = got.at(name);
    EXPECT_EQ(files::name(found.type), files::name(tensor.type)) << name;
    EXPECT_EQ(found.shape, tensor.shape) << name;
    EXPECT_TRUE(std::ranges::equal(found.bytes, tensor.bytes)) << name;
  }
}

std::vector<float> values_of(const StoredTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  weights::decode_f32(tensor.type, tensor.bytes, values);
  return values;
}

/// Names, shapes and values are equal; the types may differ.
void expect_same_values(const Tensors& got, const Tensors& want) {
  EXPECT_EQ(got.size(), want.size());
  for (const auto& [name, tensor] : want) {
    ASSERT_TRUE(got.contains(name)) << name;
    EXPECT_EQ(got.at(name).shape, tensor.shape) << name;
    EXPECT_EQ(values_of(got.at(name)), values_of(tensor)) << name;
  }
}

/// The weights of a part's folder, in one file or several.
fs::path weights_of(const fs::path& part) {
  for (const char* name : {"diffusion_pytorch_model.safetensors", "model.safetensors",
                           "diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json"})
    if (fs::exists(part / name)) return part / name;
  ADD_FAILURE() << part << " holds no weights";
  return {};
}

fs::path model_part(const std::string& model, const std::string& part) { return golden_path("models/" + model) / part; }

/// The message of the Error that the conversion ends with.
std::string error_of(const fs::path& in, const fs::path& out, const ConvertOptions& options = {}) {
  try {
    convert(in, out, options);
  } catch (const base::Error& error) {
    EXPECT_NE(error.kind(), base::ErrorKind::internal) << error.what();
    return error.what();
  }
  return "no error";
}

void expect_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" in: " << text;
}

// ---- The transformer of tools/reference/convert.py ------------------------------------------------------------------

struct Numbers {
  std::vector<int64_t> shape;
  std::vector<float> values;
};
using Model = std::map<std::string, Numbers>;

Model formula_model() {
  constexpr int64_t kWidth = 32, kHead = 16, kMlp = 256, kText = 48, kPooled = 24, kChannels = 16;
  Model model;
  const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
    model[name + ".weight"].shape = {out, in};
    model[name + ".bias"].shape = {out};
  };
  const auto norms = [&](const std::string& name) {
    for (const char* which : {"query_norm", "key_norm"})
      model[fmt::format("{}.norm.{}.scale", name, which)].shape = {kHead};
  };
  linear("img_in", kWidth, kChannels);
  linear("txt_in", kWidth, kText);
  linear("time_in.in_layer", kWidth, 256);
  linear("time_in.out_layer", kWidth, kWidth);
  linear("vector_in.in_layer", kWidth, kPooled);
  linear("vector_in.out_layer", kWidth, kWidth);
  linear("final_layer.linear", kChannels, kWidth);
  linear("final_layer.adaLN_modulation.1", 2 * kWidth, kWidth);
  for (const std::string stream : {"double_blocks.0.img", "double_blocks.0.txt"}) {
    linear(stream + "_mod.lin", 6 * kWidth, kWidth);
    linear(stream + "_attn.qkv", 3 * kWidth, kWidth);
    linear(stream + "_attn.proj", kWidth, kWidth);
    linear(stream + "_mlp.0", kMlp, kWidth);
    linear(stream + "_mlp.2", kWidth, kMlp);
    norms(stream + "_attn");
  }
  linear("single_blocks.0.modulation.lin", 3 * kWidth, kWidth);
  linear("single_blocks.0.linear1", 3 * kWidth + kMlp, kWidth);
  linear("single_blocks.0.linear2", kWidth, kWidth + kMlp);
  norms("single_blocks.0");
  uint32_t number = 0;
  for (auto& [name, numbers] : model) {
    for (uint64_t i = 0; i < files::element_count(numbers.shape); ++i) {
      const auto hash = static_cast<uint32_t>(i * 2654435761U + number * 40503U);
      numbers.values.push_back(static_cast<float>(static_cast<int>(hash >> 16) - 32768) / 1048576.0F);
    }
    ++number;
  }
  return model;
}

fs::path write_model(const Model& model, const fs::path& path) {
  files::TensorTable table;
  std::string bytes;
  for (const auto& [name, numbers] : model) {
    table.entries.push_back({.name = name, .shape = numbers.shape, .size = 4 * numbers.values.size()});
    bytes.append(reinterpret_cast<const char*>(numbers.values.data()), 4 * numbers.values.size());
  }
  base::write_file(path, files::make_safetensors_header(table) + bytes);
  return path;
}

// ---- Layouts --------------------------------------------------------------------------------------------------------

TEST(Convert, DiffusersFolderBecomesBflFile) {
  const TemporaryFolder folder;
  for (const std::string model : {"m1_dev", "m3_schnell"}) {
    const fs::path out = folder / (model + ".safetensors");
    const ConvertResult result = convert(golden_path("models/" + model), out);
    expect_same(read_tensors(out), read_tensors(golden_path("layouts/" + model + "/flux1.safetensors")));
    ASSERT_EQ(result.notes.size(), 1U);
    expect_contains(result.notes[0], {"VAE", "CLIP", "T5", "transformer was converted"});
  }
}

TEST(Convert, BflFileBecomesDiffusers) {
  const TemporaryFolder folder;
  for (const std::string model : {"m1_dev", "m3_schnell"}) {
    const fs::path out = folder / (model + ".safetensors");
    convert(golden_path("layouts/" + model + "/flux1.safetensors"), out, {.layout = Layout::diffusers});
    expect_same(read_tensors(out), read_tensors(weights_of(model_part(model, "transformer"))));
  }
}

TEST(Convert, VaeBothWays) {
  const TemporaryFolder folder;
  convert(golden_path("models/m1_dev"), folder / "ae.safetensors", {.part = Component::vae});
  expect_same(read_tensors(folder / "ae.safetensors"), read_tensors(golden_path("layouts/ae.safetensors")));
  convert(golden_path("layouts/ae.safetensors"), folder / "vae.safetensors", {.layout = Layout::diffusers});
  expect_same(read_tensors(folder / "vae.safetensors"), read_tensors(weights_of(model_part("m1_dev", "vae"))));
}

// diffusers → BFL → diffusers gives back every tensor and every setting; what files of BFL's layout cannot show (axes,
// eos, norm groups, …) travels in their metadata. T5's relative distance of 20, gelu and 3 heads of m2 are no defaults.
TEST(Convert, FoldersSurviveTheRoundTrip) {
  const TemporaryFolder folder;
  for (const std::string& model : kModels) {
    const fs::path source = golden_path("models/" + model), bfl = folder / (model + "_bfl"),
                   back = folder / (model + "_back");
    EXPECT_EQ(convert(source, bfl).files.size(), 4U);
    for (const char* name : {"flux1", "ae", "clip_l", "t5xxl"})
      EXPECT_TRUE(fs::exists(bfl / (name + std::string(".safetensors")))) << name;
    convert(bfl, back, {.layout = Layout::diffusers});
    for (const char* part : {"transformer", "vae", "text_encoder_2"})
      expect_same(read_tensors(weights_of(back / part)), read_tensors(weights_of(source / part)));
    // transformers 5 drops CLIP's prefix "text_model." (m3, m4); our files have it as the published models do.
    Tensors clip;
    for (const auto& [name, tensor] : read_tensors(weights_of(source / "text_encoder")))
      clip[name.starts_with("text_model.") ? name : "text_model." + name] = tensor;
    expect_same(read_tensors(back / "text_encoder" / "model.safetensors"), clip);
  }
}

TEST(Convert, ConfigurationsEqualTheOriginals) {
  // Left out: versions and number types, which describe the program and the file, and training settings. m1's
  // activation has another name for the same function.
  const std::set<std::string> ignored = {"_diffusers_version",
                                         "transformers_version",
                                         "dtype",
                                         "initializer_factor",
                                         "initializer_range",
                                         "classifier_dropout",
                                         "is_decoder",
                                         "scale_decoder_outputs",
                                         "sample_size",
                                         "dense_act_fn",
                                         "invert_sigmas",
                                         "shift_terminal",
                                         "stochastic_sampling",
                                         "time_shift_type",
                                         "use_beta_sigmas",
                                         "use_exponential_sigmas",
                                         "use_karras_sigmas",
                                         "shift"};
  const TemporaryFolder folder;
  for (const std::string& model : kModels) {
    convert(golden_path("models/" + model), folder / (model + "_bfl"));
    convert(folder / (model + "_bfl"), folder / model, {.layout = Layout::diffusers});
    for (const std::string file : {"transformer/config.json", "vae/config.json", "text_encoder/config.json",
                                   "text_encoder_2/config.json", "scheduler/scheduler_config.json"}) {
      const json want = files::read_json_object(golden_path("models/" + model) / file),
                 got = files::read_json_object(folder / model / file);
      for (const auto& [key, value] : want.items()) {
        if (ignored.contains(key)) continue;
        EXPECT_EQ(got.value(key, json("missing")), value) << model << " " << file << " " << key;
      }
    }
  }
}

TEST(Convert, DiffusersFolderKeepsScheduleAndTokenizers) {
  const TemporaryFolder folder;
  for (const std::string& model : kModels) {
    const fs::path source = golden_path("models/" + model);
    convert(source, folder / model, {.layout = Layout::diffusers});
    const json want = files::read_json_object(source / "scheduler/scheduler_config.json");
    const json got = files::read_json_object(folder / model / "scheduler/scheduler_config.json");
    for (const auto& [key, value] : got.items()) EXPECT_EQ(value, want.value(key, json())) << key;
    for (const char* tokenizer : {"tokenizer", "tokenizer_2"}) {
      size_t files = 0;
      for (const auto& entry : fs::directory_iterator(source / tokenizer)) {
        EXPECT_EQ(base::read_file(folder / model / tokenizer / entry.path().filename(), 1 << 20),
                  base::read_file(entry.path(), 1 << 20));
        ++files;
      }
      EXPECT_GE(files, 2U);
    }
    const json index = files::read_json_object(folder / model / "model_index.json");
    for (const char* part : {"transformer", "vae", "text_encoder", "text_encoder_2", "scheduler"})
      EXPECT_EQ(index[part], files::read_json_object(source / "model_index.json")[part]);
  }
}

TEST(Convert, AllInOneBecomesBothFolders) {
  const TemporaryFolder folder;
  for (const std::string model : {"m1_dev", "m3_schnell"}) {
    const fs::path source = golden_path("layouts/" + model + "/all_in_one.safetensors");
    const fs::path bfl = folder / (model + "_bfl"), diffusers = folder / (model + "_diffusers");
    convert(source, bfl, {.type = TensorType::bf16});
    expect_same(read_tensors(bfl / "flux1.safetensors"),
                read_tensors(golden_path("layouts/" + model + "/flux1.safetensors")));
    expect_same(read_tensors(bfl / "ae.safetensors"), read_tensors(golden_path("layouts/ae.safetensors")));
    expect_same(read_tensors(bfl / "t5xxl.safetensors"), read_tensors(weights_of(model_part(model, "text_encoder_2"))));
    convert(source, diffusers, {.type = TensorType::bf16, .layout = Layout::diffusers});
    expect_same(read_tensors(weights_of(diffusers / "transformer")),
                read_tensors(weights_of(model_part(model, "transformer"))));
    expect_same(read_tensors(weights_of(diffusers / "vae")), read_tensors(weights_of(model_part("m1_dev", "vae"))));
    // No tokenizers came with the file, so the program's own went along, with the longest prompt that CLIP takes.
    EXPECT_TRUE(fs::exists(diffusers / "tokenizer" / "merges.txt"));
    EXPECT_EQ(files::read_json_object(diffusers / "tokenizer" / "tokenizer_config.json")["model_max_length"], 77);
  }
}

TEST(Convert, PartJoinsAnExistingFolder) {
  const TemporaryFolder folder;
  convert(golden_path("models/m3_schnell"), folder / "m3", {.layout = Layout::diffusers});
  const std::string index = base::read_file(folder / "m3" / "model_index.json", 1 << 20);
  convert(golden_path("models/m1_dev"), folder / "m3",
          {.layout = Layout::diffusers, .part = Component::vae, .existing = kReplace});
  const fs::path vae = model_part("m1_dev", "vae");
  expect_same(read_tensors(weights_of(folder / "m3" / "vae")), read_tensors(weights_of(vae)));
  EXPECT_EQ(files::read_json_object(folder / "m3/vae/config.json")["norm_num_groups"], 32);
  EXPECT_EQ(base::read_file(folder / "m3" / "model_index.json", 1 << 20), index);
}

TEST(Convert, OutputOpensAsAWholeModel) {
  const TemporaryFolder folder;
  for (const Layout layout : {Layout::bfl, Layout::diffusers}) {
    const fs::path out = folder / (layout == Layout::bfl ? "bfl" : "diffusers");
    convert(golden_path("models/m2_schnell"), out, {.layout = layout});
    const ModelBundle model = open_bundle({.model = out});
    EXPECT_EQ(model.transformer().axes, (std::vector<int64_t>{4, 2, 2}));
    EXPECT_EQ(model.variant().name, "schnell");
  }
}

// ---- Containers and types -------------------------------------------------------------------------------------------

TEST(Convert, GgufOfTransformer) {
  const TemporaryFolder folder;
  for (const std::string model : {"m1_dev", "m3_schnell"}) {
    const fs::path bfl = golden_path("layouts/" + model + "/flux1.safetensors"),
                   gguf = golden_path("layouts/" + model + "/flux1-f16.gguf");
    convert(bfl, folder / (model + ".gguf"), {.type = TensorType::f16});
    expect_same(read_tensors(folder / (model + ".gguf")), read_tensors(gguf));
    EXPECT_EQ(files::open_tensor_file(folder / (model + ".gguf")).metadata.at("general.architecture"), "flux");
    convert(gguf, folder / (model + ".safetensors"), {.type = TensorType::bf16});
    expect_same(read_tensors(folder / (model + ".safetensors")), read_tensors(bfl));
  }
}

TEST(Convert, GgufOfT5) {
  const TemporaryFolder folder;
  for (const std::string model : {"m1_dev", "m3_schnell"}) {
    const fs::path gguf = golden_path("layouts/" + model + "/t5-f16.gguf"),
                   hf = weights_of(model_part(model, "text_encoder_2"));
    convert(hf, folder / (model + ".gguf"), {.type = TensorType::f16});
    // By value: the reference stores small matrices as f16, we store them as f32.
    expect_same_values(read_tensors(folder / (model + ".gguf")), read_tensors(gguf));
    EXPECT_EQ(files::open_tensor_file(folder / (model + ".gguf")).metadata.at("general.architecture"), "t5encoder");
    convert(gguf, folder / (model + ".safetensors"), {.type = TensorType::bf16});
    expect_same(read_tensors(folder / (model + ".safetensors")), read_tensors(hf));
  }
}

TEST(Convert, TypesEqualTheReferences) {
  const TemporaryFolder folder;
  const fs::path source = write_model(formula_model(), folder / "source.safetensors");
  const json references = json::parse(base::read_file(golden_path("convert.json"), 1 << 20));
  for (const auto& [type, tensors] : references.items()) {
    const fs::path out = folder / (type + (type.starts_with("f8") ? ".safetensors" : ".gguf"));
    convert(source, out, {.type = files::type_from_name(type)});
    const Tensors got = read_tensors(out);
    EXPECT_EQ(got.size(), tensors.size()) << type;
    for (const auto& [name, want] : tensors.items()) {
      ASSERT_TRUE(got.contains(name)) << type << " " << name;
      const StoredTensor& tensor = got.at(name);
      EXPECT_EQ(files::name(tensor.type), want["type"].get<std::string>()) << type << " " << name;
      EXPECT_EQ(tensor.shape, want["shape"].get<std::vector<int64_t>>()) << type << " " << name;
      const auto* bytes = reinterpret_cast<const Bytef*>(tensor.bytes.data());
      EXPECT_EQ(crc32(0, tensor.bytes.empty() ? Z_NULL : bytes, static_cast<uInt>(tensor.bytes.size())),
                want["crc32"].get<uint32_t>())
          << type << " " << name;
    }
  }
}

TEST(Convert, ScaledFp8EqualsComfyUi) {
  const TemporaryFolder folder;
  convert(golden_path("layouts/m1_dev/flux1.safetensors"), folder / "f8.safetensors", {.type = TensorType::f8_e4m3});
  const Tensors want = read_tensors(golden_path("layouts/m1_dev/flux1-fp8_scaled.safetensors"));
  expect_same(read_tensors(folder / "f8.safetensors"), want);
  convert(folder / "f8.safetensors", folder / "again.safetensors");
  expect_same(read_tensors(folder / "again.safetensors"), want);
  convert(golden_path("layouts/m1_dev/flux1-fp8_plain.safetensors"), folder / "plain.safetensors");
  expect_same(read_tensors(folder / "plain.safetensors"),
              read_tensors(golden_path("layouts/m1_dev/flux1-fp8_plain.safetensors")));
}

TEST(Convert, ScalesAreAppliedWhenFp8IsUnpacked) {
  const TemporaryFolder folder;
  convert(golden_path("layouts/m1_dev/flux1-fp8_scaled.safetensors"), folder / "f32.safetensors",
          {.type = TensorType::f32});
  Tensors stored = read_tensors(golden_path("layouts/m1_dev/flux1-fp8_scaled.safetensors"));
  for (const auto& [name, tensor] : read_tensors(folder / "f32.safetensors")) {
    std::vector<float> want = values_of(stored.at(name));
    const auto scale = stored.find(name.substr(0, name.rfind('.')) + ".scale_weight");
    if (scale != stored.end() && name.ends_with(".weight"))
      for (float& value : want) value *= values_of(scale->second).at(0);
    EXPECT_EQ(values_of(tensor), want) << name;
  }
}

// Rows of quantised matrices move as they are: split into q, k and v and stacked again, nothing is rounded twice.
TEST(Convert, PackedRowsSurviveTheRoundTrip) {
  const TemporaryFolder folder;
  const fs::path source = write_model(formula_model(), folder / "source.safetensors");
  for (const TensorType type : {TensorType::q8_0, TensorType::q4_1}) {
    convert(source, folder / "packed.gguf", {.type = type, .existing = kReplace});
    convert(folder / "packed.gguf", folder / "diffusers.gguf", {.layout = Layout::diffusers, .existing = kReplace});
    const Tensors split = read_tensors(folder / "diffusers.gguf");
    EXPECT_EQ(split.at("single_transformer_blocks.0.attn.to_v.weight").type, type);
    EXPECT_EQ(split.at("single_transformer_blocks.0.proj_mlp.weight").shape, (std::vector<int64_t>{256, 32}));
    convert(folder / "diffusers.gguf", folder / "again.gguf", {.existing = kReplace});
    expect_same(read_tensors(folder / "again.gguf"), read_tensors(folder / "packed.gguf"));
  }
}

// Rows of 256 fit a k-quant, rows of 32 and 288 do not and become q8_0. Bound: 6 bits over a range of 2^-4 leave steps
// of 2^-10; half a step and the rounding of the scales stay below one.
TEST(Convert, RowsThatDoNotFitFallBack) {
  const TemporaryFolder folder;
  const Model model = formula_model();
  convert(write_model(model, folder / "source.safetensors"), folder / "q6_k.gguf", {.type = TensorType::q6_k});
  const Tensors got = read_tensors(folder / "q6_k.gguf");
  EXPECT_EQ(got.at("single_blocks.0.linear1.weight").type, TensorType::q8_0);
  EXPECT_EQ(got.at("single_blocks.0.linear2.weight").type, TensorType::q8_0);
  EXPECT_EQ(got.at("time_in.in_layer.weight").type, TensorType::f16);
  const StoredTensor& packed = got.at("double_blocks.0.txt_mlp.2.weight");
  ASSERT_EQ(packed.type, TensorType::q6_k);
  const std::vector<float> values = values_of(packed), &want = model.at("double_blocks.0.txt_mlp.2.weight").values;
  for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], want[i], 0x1p-10F) << i;
  convert(golden_path("models/m1_dev"), folder / "m1.gguf", {.type = TensorType::q4_0});  // its rows fit nothing
  expect_same_values(read_tensors(folder / "m1.gguf"), read_tensors(golden_path("layouts/m1_dev/flux1.safetensors")));
}

TEST(Convert, FolderChoosesTheContainerOfEachPart) {
  const TemporaryFolder folder;
  convert(golden_path("models/m2_schnell"), folder / "q8", {.type = TensorType::q8_0});
  for (const char* name : {"flux1.gguf", "t5xxl.gguf", "ae.safetensors", "clip_l.safetensors"})
    EXPECT_TRUE(fs::exists(folder / "q8" / name)) << name;
  EXPECT_EQ(read_tensors(folder / "q8" / "flux1.gguf").at("double_blocks.0.img_mlp.2.weight").type, TensorType::q8_0);
  EXPECT_EQ(read_tensors(folder / "q8" / "ae.safetensors").at("decoder.conv_in.weight").type, TensorType::f32);
  convert(folder / "q8", folder / "again");  // no type: packed parts stay GGUF
  expect_same(read_tensors(folder / "again" / "flux1.gguf"), read_tensors(folder / "q8" / "flux1.gguf"));
}

// ---- What is refused, in words --------------------------------------------------------------------------------------

TEST(ConvertErrors, TypesThatTheOutputCannotHold) {
  const TemporaryFolder folder;
  const fs::path model = golden_path("models/m1_dev"), packed = folder / "packed.gguf";
  expect_contains(error_of(model, folder / "a.safetensors", {.type = TensorType::q4_k}),
                  {"a.safetensors", "safetensors cannot hold q4_k", ".gguf"});
  expect_contains(error_of(model, folder / "a.gguf", {.type = TensorType::f8_e4m3}),
                  {"GGUF cannot hold f8_e4m3", "q8_0"});
  expect_contains(error_of(model, folder / "a", {.type = TensorType::q8_0, .layout = Layout::diffusers}),
                  {"diffusers folder cannot hold q8_0", "--layout bfl"});
  expect_contains(error_of(model, folder / "a", {.type = TensorType::i8}), {"--type is i8", "expected one of f32"});
  expect_contains(error_of(model, folder / "a.gguf", {.part = Component::vae}),
                  {"only the transformer and T5", "GGUF"});
  convert(golden_path("models/m2_schnell"), packed, {.type = TensorType::q8_0});
  expect_contains(error_of(packed, folder / "a.safetensors"),
                  {"packed.gguf: tensor double_blocks", "stored as q8_0", "--type bf16"});
  expect_contains(error_of(golden_path("layouts/m1_dev/flux1-fp8_scaled.safetensors"), folder / "a.safetensors",
                           {.layout = Layout::diffusers}),
                  {"f8_e4m3 with a scale", "--type bf16"});
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1) << "only packed.gguf";
}

TEST(ConvertErrors, ExistingOutput) {
  const TemporaryFolder folder;
  const fs::path model = golden_path("models/m1_dev"), file = folder / "a.safetensors", place = folder / "place";
  base::write_file(file, "precious");
  fs::create_directory(place);
  base::write_file(place / "notes.txt", "precious");
  expect_contains(error_of(model, file), {"a.safetensors: exists already", "--force"});
  expect_contains(error_of(model, place), {"place: exists already", "--force"});
  EXPECT_EQ(base::read_file(file, 100), "precious");

  convert(model, file, {.existing = kReplace});
  EXPECT_EQ(read_tensors(file).size(), 92U);
  convert(model, place, {.existing = kReplace});
  EXPECT_EQ(base::read_file(place / "notes.txt", 100), "precious");
  EXPECT_EQ(open_files(place).size(), 4U);
  // An old transformer beside the new one would make the folder unreadable; the other parts may stay.
  const ConvertOptions packed{.type = TensorType::q8_0, .part = Component::transformer, .existing = kReplace};
  expect_contains(error_of(model, place, packed), {"flux1.safetensors", "remove it"});
  fs::remove(place / "flux1.safetensors");
  convert(model, place, packed);
  EXPECT_EQ(open_files(place).size(), 4U);
}

TEST(ConvertErrors, InputIsNeverOverwritten) {
  const TemporaryFolder folder;
  const fs::path model = folder / "model";
  fs::copy(golden_path("models/m1_dev"), model, fs::copy_options::recursive);
  fs::create_symlink(model, folder / "link");
  const ConvertOptions replace{.existing = kReplace};
  const fs::path file = model / "transformer" / "diffusion_pytorch_model.safetensors";
  const std::string before = base::read_file(file, 1 << 20);
  expect_contains(error_of(file, file, replace), {"is itself the input"});
  expect_contains(error_of(model, model, replace), {"holds the input"});
  expect_contains(error_of(model, folder / "link", replace), {"holds the input"});
  expect_contains(error_of(folder / "link" / "vae", folder.path(), replace), {"holds the input"});
  EXPECT_EQ(base::read_file(file, 1 << 20), before);
}

TEST(ConvertErrors, NumbersThatCannotBeWritten) {
  const TemporaryFolder folder;
  Model model = formula_model();
  float& number = model["single_blocks.0.linear1.weight"].values[5000];
  for (const float odd : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    number = odd;
    const fs::path source = write_model(model, folder / "odd.safetensors");
    for (const auto type :
         {std::optional<TensorType>(), std::optional(TensorType::bf16), std::optional(TensorType::f8_e4m3)})
      expect_contains(error_of(source, folder / "out.safetensors", {.type = type}),
                      {"odd.safetensors: tensor single_blocks.0.linear1.weight", "NaN or infinity"});
  }
  number = 70000;
  const fs::path source = write_model(model, folder / "odd.safetensors");
  for (const TensorType type : {TensorType::f16, TensorType::q8_0, TensorType::q6_k})
    expect_contains(error_of(source, folder / "out.gguf", {.type = type}),
                    {"single_blocks.0.linear1.weight", "70000", "--type bf16"});
  expect_contains(error_of(source, folder / "out.safetensors", {.type = TensorType::f8_e5m2}), {"70000", "57344"});
  convert(source, folder / "out.safetensors", {.type = TensorType::f8_e4m3});  // its scale makes room
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 2) << "nothing half-written is left";
}

TEST(ConvertErrors, PartsThatAreNotThere) {
  const TemporaryFolder folder;
  const fs::path ae = golden_path("layouts/ae.safetensors");
  expect_contains(error_of(ae, folder / "t5.safetensors", {.part = Component::t5}),
                  {"ae.safetensors: holds no T5 text encoder"});
  fs::create_directory(folder / "two");
  fs::copy(ae, folder / "two");
  fs::copy(weights_of(model_part("m1_dev", "text_encoder")), folder / "two");
  expect_contains(error_of(folder / "two", folder / "a.safetensors"), {"the VAE, the CLIP text encoder", "--part"});
  fs::copy(ae, folder / "two" / "copy.safetensors");
  expect_contains(error_of(folder / "two", folder / "a"), {"ae.safetensors", "copy.safetensors", "both hold a VAE"});
  expect_contains(error_of(folder / "nothing", folder / "a"), {"nothing: no such file"});
  expect_contains(error_of(ae, folder / "no" / "such" / "ae.safetensors"), {"there is no folder"});
  expect_contains(
      error_of(write_model(formula_model(), folder / "wide.safetensors"), folder / "a", {.layout = Layout::diffusers}),
      {"four times as wide", "256 for 32", "--layout bfl"});
}

TEST(ConvertErrors, DiskSpaceIsCheckedFirst) {
  const TemporaryFolder folder;
  // 8 TiB that are a hole in the file: it takes no space, its copy would.
  constexpr uint64_t kColumns = uint64_t{1} << 36;
  Model model = formula_model();
  model.erase("txt_in.weight");
  const fs::path huge = folder / "huge.safetensors";
  files::TensorTable table;
  for (const auto& [name, numbers] : model)
    table.entries.push_back({.name = name, .shape = numbers.shape, .size = 4 * numbers.values.size()});
  table.entries.push_back({.name = "txt_in.weight", .shape = {32, int64_t{kColumns}}, .size = 4 * 32 * kColumns});
  base::write_file(huge, files::make_safetensors_header(table));
  std::error_code unsupported;
  fs::resize_file(huge, table.entries.back().offset + 4 * 32 * kColumns, unsupported);
  if (unsupported || fs::space(folder.path()).available > 4 * 32 * kColumns)
    GTEST_SKIP() << "needs holes, and a disk below 8 TiB";
  expect_contains(error_of(huge, folder / "out.safetensors"),
                  {"out.safetensors: needs 8796.", "GB of disk space", "free there"});
}

TEST(ConvertErrors, CancelLeavesNothing) {
  const TemporaryFolder folder;
  for (const char* out : {"file.safetensors", "folder"}) {
    base::CancelToken cancel;
    const auto request = [&](const base::ProgressEvent& event) {
      if (event.done == 5) cancel.request();
    };
    expect_contains(error_of(golden_path("models/m1_dev"), folder / out, {.progress = request, .cancel = &cancel}),
                    {"canceled"});
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

// ---- The command ----------------------------------------------------------------------------------------------------

TEST(ConvertCommand, ConvertsAndRefuses) {
  const TemporaryFolder folder;
  const std::string model = golden_path("models/m2_schnell").string(), out = (folder / "m2.gguf").string();
  const auto done = test::run_calotype({"convert", model, out, "--type", "q8_0", "--part", "transformer"});
  EXPECT_EQ(done.exit_code, 0) << done.error;
  expect_contains(done.out, {"m2.gguf: transformer", "q8_0"});
  EXPECT_FALSE(read_tensors(out).empty());
  const test::ProgramResult again = test::run_calotype({"convert", model, out, "--type", "q8_0"});
  EXPECT_EQ(again.exit_code, 2);
  expect_contains(again.error, {"exists already", "--force"});
  EXPECT_EQ(test::run_calotype({"convert", model, out, "--force"}).exit_code, 0);
  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{"--type", "q9"}, {"--layout", "comfy"}, {"--part", "lora"}}) {
    const auto result = test::run_calotype({"convert", model, (folder / "x").string(), wrong[0], wrong[1]});
    EXPECT_EQ(result.exit_code, 2);
    expect_contains(result.error, {wrong[0], wrong[1], "expected"});
  }
}

}  // namespace
}  // namespace calotype::pipeline
