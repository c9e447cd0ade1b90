#include "train/train_options.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <regex>

#include "base/check_range.h"
#include "base/error.h"
#include "base/utf8.h"

namespace calotype::train {
namespace fs = std::filesystem;
using base::check_range;
using base::ErrorKind;

namespace {

void check_word(std::string_view field, const std::string& value, std::initializer_list<std::string_view> words) {
  std::string list;
  for (const std::string_view word : words) list += fmt::format("{}{}", list.empty() ? "" : ", ", word);
  base::check(std::ranges::find(words, value) != words.end(), ErrorKind::bad_input, "--{} is {}, expected one of {}",
              field, base::printable(value), list);
}

void check_text(std::string_view field, const std::string& value) {
  base::check(!base::first_broken_utf8(value), ErrorKind::bad_input, "--{} is not valid UTF-8: {}", field,
              base::printable(value));
}

void check_distillation(const TrainOptions& o) {
  if (o.distill_guidance.empty()) return;
  const auto& range = o.distill_guidance;
  base::check(range.size() == 2 && range[0] >= 0 && range[1] >= range[0] && range[1] <= 100, ErrorKind::bad_input,
              "--distill-guidance is {}, expected two numbers from 0 to 100 like 1,5", nlohmann::json(range).dump());
  base::check(o.mode != Mode::autoencoder && !o.text_encoders && o.preserve.empty(), ErrorKind::bad_input,
              "--distill-guidance trains the transformer alone; leave out --component autoencoder, --text-encoders "
              "and --preserve");
}

void check_layers(const std::string& pattern) {
  if (pattern.empty()) return;
  base::check(pattern.size() <= 1000, ErrorKind::bad_input, "--layers has {} characters, expected at most 1000",
              pattern.size());
  try {
    const std::regex compiled(pattern, std::regex::ECMAScript);
  } catch (const std::regex_error& error) {
    base::fail(ErrorKind::bad_input, "--layers is {}, which is not a regular expression: {}", base::printable(pattern),
               error.what());
  }
}

/// Paths that are too long or may not be looked at are an error here, not an exception of another type.
void check_exists(const fs::path& path) {
  std::error_code error;
  const bool found = fs::exists(path, error);
  base::check(!error, ErrorKind::bad_input, "{}: cannot be looked at: {}", path.string(), error.message());
  base::check(found, ErrorKind::not_found, "{}: no such file or folder", path.string());
}

/// Saving a model replaces its folder: what else lies there would be lost.
void check_output_folder(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder, error)) return;
  base::check(fs::is_directory(folder, error), ErrorKind::bad_input, "{}: is a file, --output must name a folder",
              folder.string());
  base::check(fs::is_empty(folder, error) || fs::exists(folder / kTrainedMark, error), ErrorKind::conflict,
              "{}: holds other files, which a trained model would replace; let --output name a new folder",
              folder.string());
}

void check_output(const TrainOptions& o) {
  base::check(!o.output.empty(), ErrorKind::bad_input, "no output; name it with --output");
  base::check(o.output.has_filename(), ErrorKind::bad_input, "{}: ends in a slash, --output must name what to write",
              o.output.string());
  const fs::path parent = o.output.has_parent_path() ? o.output.parent_path() : fs::path(".");
  std::error_code error;
  base::check(fs::is_directory(parent, error), ErrorKind::not_found, "{}: the folder {} does not exist",
              o.output.string(), parent.string());
  if (o.mode != Mode::lora) {
    check_output_folder(o.output);
    return check_output_folder(best_path(o));
  }
  base::check(!fs::is_directory(o.output, error), ErrorKind::bad_input, "{}: is a folder, --output must name a file",
              o.output.string());
  base::check(o.output.extension() == ".safetensors", ErrorKind::bad_input,
              "{}: adapters are safetensors files; let --output end in .safetensors", o.output.string());
}

}  // namespace

void check_options(const TrainOptions& o) {
  check_exists(o.data);
  check_output(o);
  check_range("steps", o.steps, 1, 10'000'000);
  check_range("rank", o.rank, 1, 1024);
  if (o.alpha) check_range("alpha", *o.alpha, 1e-6, 1e6);
  check_layers(o.layers);
  check_word("optimizer", o.optimizer, {"adamw", "adamw8bit", "prodigy", "muon"});
  if (o.learning_rate) check_range("lr", *o.learning_rate, 1e-12, 100.0);
  check_range("muon-lr", o.muon_learning_rate, 1e-12, 100.0);
  check_range("beta1", o.beta1, 0.0, 0.99999);
  check_range("beta2", o.beta2, 0.0, 0.99999999);
  check_range("epsilon", o.epsilon, 1e-20, 1.0);
  check_range("weight-decay", o.weight_decay, 0.0, 100.0);
  check_word("schedule", o.schedule, {"constant", "cosine", "linear"});
  check_range("warmup", o.warmup, 0, o.steps);
  check_range("decay", o.decay, 0.0, 1.0);
  check_range("batch", o.batch, 1, 4096);
  check_range("accumulate", o.accumulate, 1, 4096);
  check_range("max-grad-norm", o.clip, 0.0, 1e6);
  check_range("ema", o.ema, 0.0, 0.999999);
  check_word("timesteps", o.timesteps, {"auto", "sigmoid", "flux-shift", "uniform"});
  if (o.shift) check_range("shift", *o.shift, 0.01, 100.0);
  base::check(!o.shift || o.timesteps == "auto" || o.timesteps == "flux-shift", ErrorKind::bad_input,
              "--shift belongs to --timesteps flux-shift, not {}", o.timesteps);
  check_range("guidance", o.guidance, 0.0, 100.0);
  check_distillation(o);
  check_range("caption-dropout", o.caption_dropout, 0.0, 1.0);
  check_word("latents", o.latents, {"sample", "mean"});
  check_range("preserve-weight", o.preserve_weight, 0.0, 1000.0);
  for (const int resolution : o.resolutions) check_range("resolution", resolution, 16, 4096);
  check_range("max-sequence-length", o.max_sequence_length, 0, 512);
  check_range("crop", o.crop, 16, 1024);
  check_range("pooled", o.pooled, 0.0, 1.0);
  check_range("checkpoint-every", o.checkpoint_every, 0, 1'000'000);
  check_range("validation-split", o.validation_split, 0.0, 0.5);
  check_range("validate-every", o.validate_every, 1, 1'000'000);
  check_range("sample-every", o.sample_every, 1, 1'000'000);
  check_range("sample-side", o.sample_side, 0, 4096);
  check_word("save-type", o.save_type, {"", "f32", "bf16", "f16"});
  check_text("layers", o.layers);
  check_text("trigger", o.trigger);
  check_text("preserve", o.preserve);
  check_text("caption", o.default_caption);
  for (const std::string& prompt : o.sample_prompts) check_text("sample-prompt", prompt);
  base::check(o.preserve.empty() || !o.trigger.empty(), ErrorKind::bad_input,
              "--preserve needs --trigger: the class word takes the trigger's place in the captions");
  base::check(o.preserve.empty() || o.mode == Mode::lora, ErrorKind::bad_input,
              "--preserve compares with the frozen base, which only --mode lora keeps");
  base::check(!o.text_encoders || o.mode == Mode::full, ErrorKind::bad_input, "--text-encoders needs --mode full");
  if (!o.validation_data.empty()) check_exists(o.validation_data);
}

double learning_rate_of(const TrainOptions& o) {
  if (o.learning_rate) return *o.learning_rate;
  if (o.optimizer == "prodigy") return 1.0;
  switch (o.mode) {
    case Mode::lora: return 4e-4;
    case Mode::full: return 1e-4;
    case Mode::autoencoder: return 1e-3;
  }
  return 0;
}

double alpha_of(const TrainOptions& o) { return o.alpha.value_or(o.rank); }

fs::path work_folder(const TrainOptions& o) { return o.output.string() + ".train"; }

fs::path best_path(const TrainOptions& o) {
  return o.output.parent_path() / (o.output.stem().string() + ".best" + o.output.extension().string());
}

std::string settings_text(const TrainOptions& o) {
  nlohmann::json s = {{"mode", static_cast<int>(o.mode)},
                      {"trigger", o.trigger},
                      {"seed", o.seed},
                      {"optimizer", o.optimizer},
                      {"lr", learning_rate_of(o)},
                      {"beta1", o.beta1},
                      {"beta2", o.beta2},
                      {"epsilon", o.epsilon},
                      {"weight-decay", o.weight_decay},
                      {"schedule", o.schedule},
                      {"warmup", o.warmup},
                      {"batch", o.batch},
                      {"accumulate", o.accumulate},
                      {"clip", o.clip},
                      {"ema", o.ema},
                      {"resolution", o.resolutions},
                      {"flip", o.flip},
                      {"latents", o.latents}};
  if (o.schedule != "constant") s.update({{"steps", o.steps}, {"decay", o.decay}});
  if (o.optimizer == "muon") s["muon-lr"] = o.muon_learning_rate;
  if (o.mode == Mode::lora) s.update({{"rank", o.rank}, {"alpha", alpha_of(o)}, {"layers", o.layers}});
  if (o.mode == Mode::autoencoder)
    s.update({{"crop", o.crop}, {"pooled", o.pooled}});
  else
    s.update({{"timesteps", o.timesteps},
              {"guidance", o.guidance},
              {"caption-dropout", o.caption_dropout},
              {"masked", o.masked},
              {"max-sequence-length", o.max_sequence_length},
              {"preserve", o.preserve},
              {"preserve-weight", o.preserve_weight},
              {"distill-guidance", o.distill_guidance},
              {"text-encoders", o.text_encoders}});
  if (o.shift) s["shift"] = *o.shift;
  return s.dump();
}

}  // namespace calotype::train
