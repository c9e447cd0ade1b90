#include "train/model_files.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <regex>

#include "adapters/lora_apply.h"
#include "base/atomic_file.h"
#include "base/error.h"
#include "pipeline/convert.h"
#include "pipeline/diffusers_config.h"
#include "train/flow_loss.h"
#include "weights/fingerprint.h"
#include "weights/tensor_writer.h"

namespace calotype::train {
namespace fs = std::filesystem;
using adapters::AdapterPair;
using at::Tensor;
using base::ErrorKind;
using nlohmann::json;
using weights::Component;

namespace {

constexpr int64_t kPublishedWidth = 3072;

std::string without_ending(const std::string& name) { return name.substr(0, name.rfind('.')); }

bool is_block(const std::string& name) {
  return name.starts_with("double_blocks.") || name.starts_with("single_blocks.");
}

bool fits(const Tensor& values, double largest) { return values.abs().max().item<double>() <= largest; }

/// f16 unless it was left to us and a number is too large for it, as in adapters that diverged.
bool needs_f32(const std::vector<AdapterPair>& pairs, const TrainOptions& options) {
  constexpr double kLargestHalf = 65504;
  return options.save_type.empty() && std::ranges::any_of(pairs, [](const AdapterPair& pair) {
           return !fits(pair.down_RI, kLargestHalf) || !fits(pair.up_OR, kLargestHalf);
         });
}

at::ScalarType save_type(const TrainOptions& options) {
  if (options.save_type == "f32") return at::kFloat;
  if (options.save_type == "bf16") return at::kBFloat16;
  if (options.save_type == "f16") return at::kHalf;
  return options.mode == Mode::lora ? at::kHalf : at::kBFloat16;
}

/// dev's licence binds what is derived from it; other models of its shape (small ones) are their makers' affair.
std::map<std::string, std::string> licence(const pipeline::ModelBundle& bundle) {
  const flux::TransformerConfig config = bundle.transformer();
  if (config.width != kPublishedWidth) return {};
  if (!config.guidance) return {{"license", "apache-2.0"}, {"modelspec.architecture", "flux-1-schnell/lora"}};
  return {
      {"license", "flux-1-dev-non-commercial-license"},
      {"modelspec.architecture", "flux-1-dev/lora"},
      {"license_notice",
       "The base model is licensed under the FLUX.1 [dev] Non-Commercial License by Black Forest Labs; this adapter "
       "is a derivative of it, modified by fine-tuning, and bound by the same terms."}};
}

std::map<std::string, std::string> adapter_metadata(const pipeline::ModelBundle& bundle, const TrainOptions& options,
                                                    const json& about) {
  std::map<std::string, std::string> out = licence(bundle);
  out.merge(std::map<std::string, std::string>{
      {"format", "pt"},
      {"software", "calotype"},
      {"ss_base_model_version", "flux.1"},
      {"base_model", bundle.name},
      {"base_model_fingerprint", weights::fingerprint(bundle.part(Component::transformer))},
      {"rank", fmt::to_string(options.rank)},
      {"alpha", fmt::to_string(alpha_of(options))},
      {"steps", fmt::to_string(about.value("steps", int64_t{0}))},
      {"training", about.dump()}});
  if (!options.trigger.empty()) {
    out["trigger_word"] = options.trigger;
    out["modelspec.trigger_phrase"] = options.trigger;
  }
  return out;
}

}  // namespace

std::vector<AdapterPair> new_adapters(const weights::AdapterSlots& slots, const TrainOptions& options,
                                      at::Device device) {
  const std::regex wanted(options.layers.empty() ? "" : options.layers);
  std::vector<AdapterPair> pairs;
  std::string example;
  int all = 0;
  for (const auto& [layer, slot] : slots) {
    if (!is_block(layer)) continue;
    for (const weights::DiffusersKey& key : weights::diffusers_keys(layer + ".weight", {})) {
      ++all;
      const std::string module = without_ending(key.name);
      if (example.empty()) example = module;
      if (!std::regex_search(module, wanted)) continue;
      const auto [in, out, bias] = slot->shape;
      const adapters::Rows rows = adapters::rows_of(key.part, key.parts, slot->shape);
      at::Generator random = generator(options.seed, Stream::initial, pairs.size());
      const double bound = 1 / std::sqrt(static_cast<double>(in));
      const auto f32 = at::TensorOptions().dtype(at::kFloat);
      const Tensor down = at::empty({options.rank, in}, f32).uniform_(-bound, bound, random).to(device);
      pairs.push_back({.layer = layer,
                       .part = key.part,
                       .parts = key.parts,
                       .down_RI = down.set_requires_grad(true),
                       .up_OR = at::zeros({rows.count, options.rank}, f32.device(device)).set_requires_grad(true),
                       .scale = alpha_of(options) / options.rank,
                       .stored_name = "transformer." + module});
    }
  }
  base::check(!pairs.empty(), ErrorKind::bad_input,
              "--layers {} matches none of the {} layers of the blocks, for example {}",
              base::printable(options.layers), all, example);
  return pairs;
}

Parameter trained_weight(const std::string& name, const at::Tensor& value) {
  Parameter parameter{.name = name, .value = value};
  const bool hidden = (is_block(name) && name.find("mod") == std::string::npos) ||
                      name.find(".layers.") != std::string::npos || name.find(".block.") != std::string::npos ||
                      name.find(".mid.") != std::string::npos || name.find("sample.conv") != std::string::npos;
  parameter.matrix = hidden && value.dim() >= 2 && name.find("relative_attention_bias") == std::string::npos;
  if (!is_block(name) || value.dim() != 2) return parameter;
  const std::vector<weights::DiffusersKey> keys = weights::diffusers_keys(name, {});
  for (const weights::DiffusersKey& key : keys)
    if (keys.size() > 1)
      parameter.row_parts.push_back(
          adapters::rows_of(key.part, key.parts, {.in = value.size(1), .out = value.size(0)}).count);
  return parameter;
}

void save_adapter(const fs::path& path, const std::vector<AdapterPair>& pairs, const pipeline::ModelBundle& bundle,
                  const TrainOptions& options, const json& about) {
  adapters::write_adapter(path, pairs, adapter_metadata(bundle, options, about),
                          needs_f32(pairs, options) ? at::kFloat : save_type(options));
}

void link_copy(const fs::path& from, const fs::path& to) {
  // Listed before anything is made: the copy may lie inside the original.
  const std::vector<fs::directory_entry> entries(fs::recursive_directory_iterator(from), {});
  fs::create_directories(to);
  for (const auto& entry : entries) {
    const fs::path target = to / fs::relative(entry.path(), from);
    if (entry.is_directory()) {
      fs::create_directories(target);
      continue;
    }
    std::error_code no_link;
    fs::create_hard_link(fs::canonical(entry.path()), target, no_link);
    if (no_link) fs::copy_file(entry.path(), target);
  }
}

bool holds_weights(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".safetensors") || name.ends_with(".gguf") || name.ends_with(".index.json");
}

namespace {

void remove_weights(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (holds_weights(entry.path())) files.push_back(entry.path());
  for (const fs::path& file : files) fs::remove(file);
}

/// The folder of a diffusers model that a part was read from, empty for other layouts.
fs::path model_folder(const pipeline::ModelBundle& bundle, Component component) {
  const fs::path folder = bundle.part(component).files.front().parent_path();
  const bool diffusers = folder.filename() == pipeline::diffusers_folder(component) &&
                         fs::exists(folder.parent_path() / "model_index.json");
  return diffusers ? folder.parent_path() : fs::path();
}

/// `fresh` takes the place of `folder`, which is absent for a moment and never half there.
void replace_folder(const fs::path& fresh, const fs::path& folder) {
  const fs::path old = folder.string() + ".old";
  fs::remove_all(old);
  if (fs::exists(folder)) fs::rename(folder, old);
  fs::rename(fresh, folder);
  fs::remove_all(old);
}

std::map<std::string, Tensor> in_type(const std::map<std::string, Tensor>& tensors, at::ScalarType dtype) {
  std::map<std::string, Tensor> out;
  for (const auto& [name, value] : tensors) {
    out[name] = value.detach().to(dtype);
    base::check(out[name].isfinite().all().item<bool>(), ErrorKind::internal,
                "{} has numbers that are not finite in this type; nothing was saved, try --save-type f32", name);
  }
  return out;
}

}  // namespace

void save_model(const fs::path& folder, const TrainedParts& parts, const pipeline::ModelBundle& bundle,
                const TrainOptions& options, const json& about) {
  const fs::path model = model_folder(bundle, parts.begin()->first), fresh = folder.string() + ".new";
  fs::remove_all(fresh);
  if (model.empty()) {
    fs::create_directories(fresh);
    for (const auto& [component, tensors] : parts) {
      const json config = {{weights::name(component), pipeline::part_config(bundle.part(component))}};
      weights::write_tensors(fresh / fmt::format("{}.safetensors", pipeline::diffusers_folder(component)),
                             in_type(tensors, save_type(options)), {{"calotype.config", config.dump()}});
    }
  } else {
    const fs::path staging = folder.string() + ".staging";
    fs::remove_all(staging);
    link_copy(model, staging);
    for (const auto& [component, tensors] : parts) {
      const fs::path part = staging / pipeline::diffusers_folder(component);
      remove_weights(part);
      weights::write_tensors(part / "trained.safetensors", in_type(tensors, save_type(options)));
    }
    pipeline::convert(staging, fresh, {.layout = pipeline::Layout::diffusers});
    fs::remove_all(staging);
  }
  base::write_file(fresh / kTrainedMark, about.dump(2) + "\n");
  replace_folder(fresh, folder);
}

}  // namespace calotype::train
