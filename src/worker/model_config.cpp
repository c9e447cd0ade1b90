#include "worker/model_config.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/data_folder.h"
#include "base/error.h"
#include "hub/pull.h"

namespace calotype::worker {
namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;

namespace {

constexpr const char* kDefault = "default";
constexpr const char* kHowTo =
    "name some with --model PATH or --model dev=PATH, in DATA/models.json, or in $CALOTYPE_MODEL";

/// The path `given`, below `folder` unless absolute, or the folder of the model that `calotype pull` fetched.
fs::path existing(const std::string& given, const fs::path& folder, const std::string& where) {
  std::error_code ignored;
  const fs::path path = folder / given;
  if (fs::exists(path, ignored)) return path;
  if (const auto pulled = hub::find_pulled_model(given)) return *pulled;
  base::fail(ErrorKind::bad_input, "{}: names {}, which does not exist and was not pulled", where, path.string());
}

fs::path path_of(const json& value, const fs::path& folder, const std::string& where) {
  base::check(value.is_string() && !value.get<std::string>().empty(), ErrorKind::bad_input,
              "{}: is {}, expected a path", where, base::printable(value.dump()));
  return existing(value.get<std::string>(), folder, where);
}

LocalWeights weights_of(const json& value, const fs::path& folder, const std::string& where) {
  if (!value.is_object()) return {.model = path_of(value, folder, where)};
  LocalWeights out;
  for (const auto& [key, part] : value.items()) {
    const std::string field = where + "." + base::printable(key);
    if (key == "model")
      out.model = path_of(part, folder, field);
    else if (key == "transformer")
      out.transformer = path_of(part, folder, field);
    else if (key == "vae")
      out.vae = path_of(part, folder, field);
    else if (key == "clip")
      out.clip = path_of(part, folder, field);
    else if (key == "t5")
      out.t5 = path_of(part, folder, field);
    else if (key == "dtype") {
      base::check(part == "auto" || part == "f32" || part == "bf16" || part == "f16", ErrorKind::bad_input,
                  "{}: is {}, expected auto, f32, bf16 or f16", field, base::printable(part.dump()));
      out.dtype = part.get<std::string>();
    } else {
      base::fail(ErrorKind::bad_input, "{}: is unknown, expected model, transformer, vae, clip, t5 or dtype", field);
    }
  }
  base::check(!out.model.empty() || !out.transformer.empty(), ErrorKind::bad_input, "{}: names no model", where);
  return out;
}

void add(ModelConfig& config, const std::string& name, LocalWeights weights) {
  if (config.first.empty()) config.first = name;
  config.weights[name] = std::move(weights);
}

void read_environment(ModelConfig& config) {
  const std::pair<const char*, const char*> variables[] = {
      {"CALOTYPE_MODEL", kDefault}, {"CALOTYPE_MODEL_DEV", "dev"}, {"CALOTYPE_MODEL_SCHNELL", "schnell"}};
  for (const auto& [variable, name] : variables) {
    const char* value = std::getenv(variable);
    if (!value || !*value) continue;
    add(config, name, {.model = existing(value, "", std::string("$") + variable)});
  }
}

void read_file(ModelConfig& config, const fs::path& file) {
  // In the order of the file: the first model serves the names that have none.
  const auto text = base::read_file(file, 1 << 20);
  const auto content =
      nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  base::check(content.is_object() && content.contains("models") && content["models"].is_object(), ErrorKind::bad_input,
              "{}: expected {{\"models\": {{\"dev\": \"PATH\"}}}}", file.string());
  config.file = file;
  for (const auto& [name, value] : content["models"].items())
    add(config, name,
        weights_of(json(value), fs::absolute(file).parent_path(), file.string() + ": models." + base::printable(name)));
}

bool same_family(const std::string& name, const std::string& backend) {
  return name == backend || (name == "black-forest-labs/flux-" + backend);
}

}  // namespace

std::string LocalWeights::shown_name() const {
  const fs::path& path = model.empty() ? transformer : model;
  const fs::path whole = fs::absolute(path).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

ModelConfig read_model_config(const ModelConfigSources& sources) {
  ModelConfig config;
  read_environment(config);
  const fs::path usual = sources.data / "models.json";
  if (!sources.file.empty())
    read_file(config, sources.file);
  else if (fs::exists(usual))
    read_file(config, usual);
  for (const std::string& text : sources.given) {
    const size_t equals = text.find('=');
    const bool named = equals != std::string::npos && !fs::exists(text);
    const fs::path path = existing(named ? text.substr(equals + 1) : text, "", "--model " + base::printable(text));
    add(config, named ? text.substr(0, equals) : kDefault, {.model = path});
  }
  config.in_the_box = base::model_in_the_box();
  return config;
}

Backing weights_behind(const ModelConfig& config, const std::string& name, const std::string& backend) {
  const auto found = [&](const std::string& key) {
    const auto it = config.weights.find(key);
    return it == config.weights.end() ? nullptr : &it->second;
  };
  for (const std::string& key : {name, backend, std::string(kDefault)})
    if (const LocalWeights* weights = found(key)) {
      const bool chosen = key == name || same_family(key, backend);
      return {.weights = *weights,
              .stand_in = !chosen,
              .sentence = fmt::format("{} is drawn by {}{}.", name, weights->shown_name(),
                                      chosen ? "" : ", the model configured for every name")};
    }
  if (!config.in_the_box.empty())
    return {.weights = {.model = config.in_the_box},
            .stand_in = true,
            .sentence = fmt::format("{} is drawn by calotype-icons, the small model in the box, which stands in: no "
                                    "weights of FLUX.1 [{}] are configured.",
                                    name, backend)};
  if (!config.first.empty()) {
    const LocalWeights& weights = *found(config.first);
    return {.weights = weights,
            .stand_in = true,
            .sentence = fmt::format("{} is drawn by {}, which stands in: no weights of FLUX.1 [{}] are configured.",
                                    name, weights.shown_name(), backend)};
  }
  base::fail(ErrorKind::not_found, "there are no weights for {}; {}", name, kHowTo);
}

std::string stand_in_note(const ModelConfig& config) {
  std::string names, by;
  for (const char* backend : {"schnell", "dev"}) {
    const std::string name = std::string("black-forest-labs/flux-") + backend;
    try {
      const Backing backing = weights_behind(config, name, backend);
      if (!backing.stand_in) continue;
      names += (names.empty() ? "" : " and ") + name;
      by = backing.weights.shown_name();
    } catch (const base::Error& error) {
      return std::string(error.what());
    }
  }
  return names.empty() ? "" : fmt::format("Pictures of {} are drawn by {}, which stands in for them.", names, by);
}

}  // namespace calotype::worker
