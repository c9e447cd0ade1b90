#include "pipeline/model_bundle.h"

#include <algorithm>
#include <set>

#include "base/data_folder.h"
#include "base/error.h"
#include "files/shard_index.h"
#include "text/tokenizer_config.h"

namespace calotype::pipeline {
namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;
using weights::Component;
using weights::TensorIndex;

namespace {

constexpr Component kComponents[] = {Component::transformer, Component::vae, Component::clip, Component::t5};

/// Which option supplies a part, and what its file is usually called.
struct Supply {
  std::string_view option, usual_file;
};
Supply supply(Component component) {
  switch (component) {
    case Component::transformer: return {"--transformer", "flux1-schnell.safetensors"};
    case Component::vae: return {"--vae", "ae.safetensors"};
    case Component::clip: return {"--clip", "clip_l.safetensors"};
    case Component::t5: return {"--t5", "t5xxl_fp16.safetensors"};
  }
  return {"--model", ""};
}

bool is_checkpoint(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".safetensors" || extension == ".gguf" || extension == ".sft";
}

FileGroup open_group(const fs::path& path) {
  FileGroup group{.path = path, .files = {}, .checkpoint = {}};
  if (path.extension() == ".json")
    group.files = files::open_shards(path);
  else
    group.files.push_back(files::open_tensor_file(path));
  group.checkpoint = weights::index_tensors(group.files);
  return group;
}

/// config.json beside the weights, given to the part that it describes.
void attach_config(FileGroup& group) {
  const fs::path file = group.path.parent_path() / "config.json";
  if (!fs::is_regular_file(file)) return;
  const json config = files::read_json_object(file);
  const std::string kind = config.value("_class_name", "") + " " + config.value("model_type", "");
  for (auto& [component, index] : group.checkpoint.parts) {
    const bool describes = (component == Component::transformer && kind.find("FluxTransformer") != std::string::npos) ||
                           (component == Component::vae && kind.find("AutoencoderKL") != std::string::npos) ||
                           (component == Component::clip && kind.find("clip") != std::string::npos) ||
                           (component == Component::t5 && kind.find("t5") != std::string::npos);
    if (describes && index.config.is_null()) index.config = config;
  }
}

/// Checkpoint files of one folder; shards are reached through their index and not opened one by one.
std::vector<FileGroup> open_folder_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::set<std::string> shards;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& path = entry.path();
    if (path.filename().string().ends_with(".index.json")) {
      files.push_back(path);
      for (const auto& [tensor, shard] : files::parse_shard_index(files::read_json_object(path).dump(), path.string()))
        shards.insert(shard);
    } else if (is_checkpoint(path)) {
      files.push_back(path);
    }
  }
  std::ranges::sort(files);
  std::vector<FileGroup> groups;
  for (const fs::path& path : files)
    if (!shards.contains(path.filename().string())) groups.push_back(open_group(path));
  return groups;
}

std::vector<FileGroup> open_folder(const fs::path& folder) {
  std::vector<FileGroup> groups;
  const auto add = [&](std::vector<FileGroup> more) { std::ranges::move(more, std::back_inserter(groups)); };
  if (fs::exists(folder / "model_index.json")) {
    for (const char* part : {"transformer", "vae", "text_encoder", "text_encoder_2"})
      if (fs::is_directory(folder / part)) add(open_folder_files(folder / part));
    return groups;
  }
  add(open_folder_files(folder));
  std::vector<fs::path> subfolders;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory()) subfolders.push_back(entry.path());
  std::ranges::sort(subfolders);
  for (const fs::path& subfolder : subfolders) add(open_folder_files(subfolder));
  return groups;
}

std::string describe(const std::vector<FileGroup>& groups) {
  std::string text;
  for (const FileGroup& group : groups) {
    std::string parts;
    for (const auto& [component, index] : group.checkpoint.parts)
      parts += (parts.empty() ? "" : ", ") + std::string(weights::name(component));
    text += fmt::format("{}{} ({})", text.empty() ? "" : "; ", group.path.string(),
                        parts.empty() ? "no part of FLUX.1" : parts);
  }
  return text.empty() ? "nothing" : text;
}

/// Takes the parts of these groups that are not yet there; two groups with the same part contradict each other.
void take_parts(ModelBundle& bundle, const std::vector<FileGroup>& groups) {
  std::map<Component, fs::path> taken;
  for (const FileGroup& group : groups) {
    for (const auto& [component, index] : group.checkpoint.parts) {
      if (bundle.parts.contains(component) && !taken.contains(component)) continue;
      if (const auto other = taken.find(component); other != taken.end())
        base::fail(ErrorKind::conflict, "{} and {} both hold a {}; name the one to use with {} FILE",
                   other->second.string(), group.path.string(), weights::name(component), supply(component).option);
      taken[component] = group.path;
      bundle.parts[component] = index;
    }
  }
}

template <size_t N>
bool has_any(const fs::path& folder, const char* const (&names)[N]) {
  return std::ranges::any_of(names, [&](const char* name) { return fs::exists(folder / name); });
}

/// The tokenizer that came with a text encoder (diffusers puts it in a sibling folder), else the program's own.
fs::path find_tokenizer(const ModelBundle& bundle, Component component) {
  const bool clip = component == Component::clip;
  const fs::path own = base::data_folder() / "models" / "tokenizers" / (clip ? "clip" : "t5");
  const auto part = bundle.parts.find(component);
  if (part == bundle.parts.end() || part->second.files.empty()) return own;
  static constexpr const char* kClipFiles[] = {"merges.txt", "tokenizer.json"};
  static constexpr const char* kT5Files[] = {"spiece.model", "tokenizer.json"};
  const fs::path folder = part->second.files.front().parent_path();
  for (const fs::path& candidate : {folder.parent_path() / (clip ? "tokenizer" : "tokenizer_2"), folder})
    if (clip ? has_any(candidate, kClipFiles) : has_any(candidate, kT5Files)) return candidate;
  return own;
}

flux::ScheduleConfig read_schedule(const ModelBundle& bundle, const fs::path& model) {
  flux::ScheduleConfig config;
  if (bundle.parts.contains(Component::transformer)) config.shifted = bundle.variant().shifted_schedule;
  const fs::path file = model / "scheduler" / "scheduler_config.json";
  if (model.empty() || !fs::is_regular_file(file)) return config;
  const json stored = files::read_json_object(file);
  const auto number = [&](const char* key, double fallback) {
    return stored.contains(key) && stored[key].is_number() ? stored[key].get<double>() : fallback;
  };
  config.shifted = stored.contains("use_dynamic_shifting") && stored["use_dynamic_shifting"] == true;
  config.shift = number("shift", config.shift);
  config.base_shift = number("base_shift", config.base_shift);
  config.max_shift = number("max_shift", config.max_shift);
  config.base_tokens = number("base_image_seq_len", config.base_tokens);
  config.max_tokens = number("max_image_seq_len", config.max_tokens);
  base::check(config.shift > 0 && config.max_tokens != config.base_tokens, ErrorKind::corrupt_file,
              "{}: shift is {} and base_image_seq_len equals max_image_seq_len or shift is not positive", file.string(),
              config.shift);
  return config;
}

/// A small model's tokenizer says how much text it was made for; FLUX.1's takes at least the variant's tokens.
int64_t default_text_tokens(const ModelBundle& bundle) {
  if (!bundle.parts.contains(Component::transformer)) return 0;
  const auto longest = text::read_tokenizer_config(bundle.t5_tokenizer).max_length;
  return std::min(bundle.variant().text_tokens, longest.value_or(bundle.variant().text_tokens));
}

}  // namespace

std::vector<FileGroup> open_files(const fs::path& path) {
  const fs::path given = path.filename() == "model_index.json" ? path.parent_path() : path;
  base::check(fs::exists(given), ErrorKind::not_found, "{}: no such file or folder", given.string());
  std::vector<FileGroup> groups;
  if (fs::is_directory(given)) {
    groups = open_folder(given);
    base::check(
        !groups.empty(), ErrorKind::not_found,
        "{}: holds no checkpoint (looked for *.safetensors, *.gguf and *.index.json there and one folder deeper)",
        given.string());
  } else {
    groups.push_back(open_group(given));
  }
  for (FileGroup& group : groups) attach_config(group);
  return groups;
}

ModelBundle open_partial_bundle(const ModelPaths& paths) {
  ModelBundle bundle;
  const fs::path main = !paths.model.empty() ? paths.model : paths.transformer;
  bundle.name = (main.has_filename() ? main : main.parent_path()).filename().string();
  std::vector<FileGroup> overrides;
  for (const fs::path& path : {paths.transformer, paths.vae, paths.clip, paths.t5}) {
    if (path.empty()) continue;
    std::vector<FileGroup> groups = open_files(path);
    const bool useful = std::ranges::any_of(groups, [](const FileGroup& g) { return !g.checkpoint.parts.empty(); });
    base::check(useful, ErrorKind::bad_input, "{}: holds no part of a FLUX.1 model (no transformer, VAE, CLIP or T5)",
                path.string());
    std::ranges::move(groups, std::back_inserter(overrides));
  }
  take_parts(bundle, overrides);
  if (!paths.model.empty()) take_parts(bundle, open_files(paths.model));
  bundle.clip_tokenizer = find_tokenizer(bundle, Component::clip);
  bundle.t5_tokenizer = find_tokenizer(bundle, Component::t5);
  bundle.schedule = read_schedule(bundle, paths.model);
  bundle.text_tokens = default_text_tokens(bundle);
  return bundle;
}

ModelBundle open_bundle(const ModelPaths& paths) {
  ModelBundle bundle = open_partial_bundle(paths);
  std::string missing;
  for (const Component component : kComponents) {
    if (bundle.parts.contains(component)) continue;
    const Supply from = supply(component);
    missing += fmt::format("{}the {} (give it with {} FILE, usually {})", missing.empty() ? "" : ", ",
                           weights::name(component), from.option, from.usual_file);
  }
  if (missing.empty()) return bundle;
  const fs::path place = !paths.model.empty() ? paths.model : paths.transformer;
  base::fail(ErrorKind::not_found, "{}: missing: {}; found: {}", place.string(), missing,
             place.empty() ? "nothing" : describe(open_files(place)));
}

}  // namespace calotype::pipeline
