#include <CLI/CLI.hpp>

#include <unistd.h>

#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/terminal.h"
#include "pipeline/memory_plan.h"
#include "pipeline/processor.h"
#include "train/memory_forecast.h"
#include "train/train.h"

namespace calotype::cli {
using base::ErrorKind;
using nlohmann::json;
using train::Mode;
using train::TrainOptions;

namespace {

struct Options {
  ModelOptions model;
  TrainOptions train;
  std::string mode = "lora", component = "transformer", resolution, recompute = "auto";
  bool check_data = false, dry_run = false, json = false, json_log = false;
};

/// "" leaves them to the model.
std::vector<int> parse_resolutions(const std::string& text) {
  std::vector<int> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    size_t used = 0;
    int value = 0;
    try {
      value = std::stoi(part, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    base::check(used > 0 && used == part.size(), ErrorKind::bad_input,
                "--resolution is {}, expected numbers of pixels like 512 or 512,768,1024", base::printable(text));
    out.push_back(value);
  }
  return out;
}

Mode parse_mode(const Options& o) {
  base::check(o.component == "transformer" || o.component == "autoencoder", ErrorKind::bad_input,
              "--component is {}, expected transformer or autoencoder", base::printable(o.component));
  base::check(o.mode == "lora" || o.mode == "full", ErrorKind::bad_input, "--mode is {}, expected lora or full",
              base::printable(o.mode));
  base::check(o.component == "transformer" || o.mode == "full", ErrorKind::bad_input,
              "--component autoencoder trains all its weights; add --mode full");
  if (o.component == "autoencoder") return Mode::autoencoder;
  return o.mode == "full" ? Mode::full : Mode::lora;
}

std::optional<bool> parse_recompute(const std::string& text) {
  base::check(text == "auto" || text == "on" || text == "off", ErrorKind::bad_input,
              "--recompute is {}, expected auto, on or off", base::printable(text));
  return text == "auto" ? std::nullopt : std::optional<bool>(text == "on");
}

/// "photos/" → "photos", as names are derived from it; "/" and "" stay.
std::filesystem::path without_slash(const std::filesystem::path& path) {
  return path.has_filename() || path.parent_path() == path ? path : path.parent_path();
}

TrainOptions finished(const Options& o) {
  TrainOptions options = o.train;
  options.mode = parse_mode(o);
  options.resolutions = parse_resolutions(o.resolution);
  options.recompute = parse_recompute(o.recompute);
  options.data = without_slash(options.data);
  options.output = without_slash(options.output);
  if (options.output.empty() && !options.data.empty()) {
    const std::string stem = without_slash(std::filesystem::absolute(options.data).lexically_normal()).stem().string();
    options.output = options.mode == Mode::lora ? stem + ".safetensors" : stem + "-model";
  }
  train::check_options(options);
  return options;
}

train::TrainHooks terminal_hooks(bool json_log) {
  train::TrainHooks hooks{.progress = terminal_progress(), .cancel = &interrupt_token(), .note = print_note, .log = {}};
  if (json_log) hooks.log = [](const json& line) { std::cout << line.dump() << std::endl; };
  return hooks;
}

int64_t vae_factor(const pipeline::ModelBundle& bundle) {
  return vae::autoencoder_config(bundle.part(weights::Component::vae)).factor();
}

json result_json(const train::TrainResult& result) {
  const auto path_text = [](const std::filesystem::path& path) { return base::printable(path.string(), 4096); };
  json out = {{"output", path_text(result.output)},
              {"steps", result.steps},
              {"skipped_steps", result.skipped},
              {"loss", result.loss},
              {"seconds_per_step", result.seconds_per_step},
              {"peak_memory_bytes", result.peak_memory}};
  if (result.base_validation) out["base_validation_loss"] = *result.base_validation;
  if (result.validation) out["validation_loss"] = *result.validation;
  if (result.best_validation) out["best_validation_loss"] = *result.best_validation;
  if (result.best_step) out.update({{"best_step", result.best_step}, {"best", path_text(result.best)}});
  return out;
}

void print_result(const train::TrainResult& result, const TrainOptions& options) {
  fmt::print("{}  {} steps, loss {:.4f}, {:.2f} s/step, peak memory {}\n", result.output.string(), result.steps,
             result.loss, result.seconds_per_step, pipeline::bytes_text(result.peak_memory));
  if (result.base_validation)
    fmt::print("validation loss {:.4f} (before training {:.4f}), best {:.4f} at step {}\n", *result.validation,
               *result.base_validation, *result.best_validation, result.best_step);
  fmt::print("curves and previews: {}\n", (train::work_folder(options) / "report.html").string());
}

/// --check-data and --dry-run leave nothing behind, and touch no run of the same output: they have a work folder of
/// their own.
class Scratch {
 public:
  explicit Scratch(TrainOptions& options) {
    options.output += fmt::format(".check-{}", ::getpid());
    folder_ = train::work_folder(options);
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

 private:
  std::filesystem::path folder_;
};

void check_data(const Options& o, TrainOptions options) {
  const Scratch scratch(options);
  const pipeline::ModelBundle bundle = train::training_bundle(o.model.paths, options);
  options = train::with_model_defaults(options, bundle);
  const train::Dataset dataset = train::training_dataset(options, vae_factor(bundle), terminal_hooks(false));
  if (o.json)
    std::cout << train::dataset_json(dataset).dump() << std::endl;
  else
    std::cout << train::dataset_text(dataset) << std::flush;
}

void dry_run(const Options& o, TrainOptions options) {
  const Scratch scratch(options);
  base::check(options.mode != Mode::autoencoder, ErrorKind::unsupported,
              "--dry-run forecasts the transformer's training only");
  const pipeline::RuntimeOptions runtime = runtime_options(o.model);
  const train::TrainHooks hooks = terminal_hooks(false);
  const pipeline::ModelBundle bundle = train::training_bundle(o.model.paths, options);
  options = train::with_model_defaults(options, bundle);
  const train::Dataset dataset = train::training_dataset(options, vae_factor(bundle), hooks);
  const train::Forecast forecast =
      train::forecast(bundle, train::split(dataset, options, vae_factor(bundle), hooks), options, runtime);
  if (o.json)
    std::cout << forecast.json().dump() << std::endl;
  else
    std::cout << forecast.text() << std::flush;
}

void run(Options o) {
  const TrainOptions options = finished(o);
  choose_model(o.model);
  if (o.check_data) return check_data(o, options);
  if (o.dry_run) return dry_run(o, options);
  const pipeline::RuntimeOptions runtime = runtime_options(o.model);
  print_note(fmt::format("training on {}", pipeline::device_text(runtime.device)));
  const train::TrainResult result = train::train(o.model.paths, options, runtime, terminal_hooks(o.json_log));
  if (o.json || o.json_log)
    std::cout << result_json(result).dump() << std::endl;
  else
    print_result(result, options);
}

/// CLI11's own conversion would wrap −1 and round 1e20.
std::string whole_seed(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return "";
  return fmt::format("{} is not a whole number from 0 to 18446744073709551615", base::printable(text));
}

void add_learning_options(CLI::App& c, TrainOptions& t) {
  c.add_option("--steps", t.steps, "optimiser steps")->capture_default_str();
  c.add_option("--rank", t.rank, "of the adapters")->capture_default_str();
  c.add_option("--alpha", t.alpha, "adapters count alpha/rank; default: the rank");
  c.add_option("--layers", t.layers, "regular expression on diffusers' layer names; default: every linear layer");
  c.add_flag("--text-encoders", t.text_encoders, "with --mode full: train CLIP and T5 as well");
  c.add_option("--optimizer", t.optimizer, "adamw, adamw8bit, prodigy or muon")->capture_default_str();
  c.add_option("--lr", t.learning_rate, "learning rate; default 4e-4 for adapters, 1e-4 for --mode full");
  c.add_option("--muon-lr", t.muon_learning_rate, "learning rate of the matrices that muon handles")
      ->capture_default_str();
  c.add_option("--beta1", t.beta1, "decay of the mean of gradients")->capture_default_str();
  c.add_option("--beta2", t.beta2, "decay of the mean of squares")->capture_default_str();
  c.add_option("--epsilon", t.epsilon, "added to the root of the mean of squares")->capture_default_str();
  c.add_option("--weight-decay", t.weight_decay, "share that weights shrink by, times the rate")->capture_default_str();
  c.add_option("--schedule", t.schedule, "constant, cosine or linear")->capture_default_str();
  c.add_option("--warmup", t.warmup, "steps up to the learning rate")->capture_default_str();
  c.add_option("--decay", t.decay, "last part of the run in which cosine or linear falls")->capture_default_str();
  c.add_option("--batch", t.batch, "pictures per step")->capture_default_str();
  c.add_option("--accumulate", t.accumulate, "batches averaged into one step")->capture_default_str();
  c.add_option("--max-grad-norm", t.clip, "largest norm of the gradient, 0: no limit")->capture_default_str();
  c.add_option("--ema", t.ema, "running average that is saved, 0: none")->capture_default_str();
  c.add_option("--seed", t.seed, "of everything random")->capture_default_str()->check(whole_seed);
}

void add_objective_options(CLI::App& c, TrainOptions& t) {
  c.add_option("--timesteps", t.timesteps, "noise levels: sigmoid, flux-shift or uniform; auto: sigmoid for FLUX.1")
      ->capture_default_str();
  c.add_option("--shift", t.shift,
               "flux-shift: over 1 is nearer to noise, where pictures are laid out; default: as the model samples");
  c.add_option("--guidance", t.guidance, "what dev models are told while they learn")->capture_default_str();
  c.add_option("--distill-guidance", t.distill_guidance,
               "LOW,HIGH: learn to draw in one pass what guidance draws in two")
      ->delimiter(',')
      ->expected(2);
  c.add_option("--caption-dropout", t.caption_dropout, "share of samples that learn the empty prompt")
      ->capture_default_str();
  c.add_option("--latents", t.latents, "sample or mean of the VAE's posterior")->capture_default_str();
  c.add_flag("--masked", t.masked, "weigh the loss by masks (NAME.mask.png)");
  c.add_option("--preserve", t.preserve, "class word that shall keep its look, for example \"person\"");
  c.add_option("--preserve-weight", t.preserve_weight, "of that in the loss")->capture_default_str();
}

void add_watching_options(CLI::App& c, TrainOptions& t) {
  c.add_option("--checkpoint-every", t.checkpoint_every, "steps between checkpoints, 0: only at the end")
      ->capture_default_str();
  c.add_option("--validation-data", t.validation_data, "pictures that are never trained on");
  c.add_option("--validation-split", t.validation_split, "share of the data held out")->capture_default_str();
  c.add_option("--validate-every", t.validate_every, "steps between looks at them")->capture_default_str();
  c.add_option("--sample-prompt", t.sample_prompts, "draw this with what was learned so far; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  c.add_option("--sample-every", t.sample_every, "steps between such pictures")->capture_default_str();
  c.add_option("--sample-side", t.sample_side, "their side in pixels; default: that of the data, at most 512");
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* c = app.add_subcommand("train", "Teach a model your pictures: adapters (LoRA) or all weights");
  auto options = std::make_shared<Options>();
  TrainOptions& t = options->train;
  c->add_option("data", t.data, "zip, tar or folder of pictures, captions in .txt files beside them")->required();
  add_model_options(*c, options->model);
  c->add_option("-o,--output", t.output, "adapter file, or folder of the model; default: named after the data");
  c->add_option("--trigger", t.trigger, "word that will stand for what is learned, for example TOK");
  c->add_option("--mode", options->mode, "lora: adapters; full: all weights")->capture_default_str();
  c->add_option("--component", options->component, "transformer or autoencoder")->capture_default_str();
  add_learning_options(*c, t);
  add_objective_options(*c, t);
  c->add_option("--resolution", options->resolution,
                "pictures are scaled down to r² pixels for each of these; default: 512,768,1024 for FLUX.1")
      ->capture_default_str();
  c->add_flag("--flip", t.flip, "mirror half of the samples");
  c->add_flag("--caption-lines", t.caption_lines, "each line of a caption file is an alternative");
  c->add_option("--caption", t.default_caption, "for pictures without a caption file");
  c->add_option("--max-sequence-length", t.max_sequence_length,
                "T5 tokens, 0 = that of the model: 256 for schnell, 512 for dev")
      ->capture_default_str();
  c->add_option("--crop", t.crop, "autoencoder: side of the squares it learns from")->capture_default_str();
  c->add_option("--pooled", t.pooled, "autoencoder: share of steps with latents averaged 2 x 2")->capture_default_str();
  add_watching_options(*c, t);
  c->add_option("--recompute", options->recompute, "compute blocks again in the backward pass: auto, on, off")
      ->capture_default_str();
  c->add_option("--save-type", t.save_type, "f32, bf16 or f16; default f16 for adapters, bf16 for models");
  c->add_flag("--tar", t.tar, "also write OUTPUT.tar as hosted trainers return it");
  c->add_flag("--restart", t.restart, "forget an earlier run of this output");
  c->add_flag("--check-data", options->check_data, "only report on the data");
  c->add_flag("--dry-run", options->dry_run, "only forecast memory and seconds per step");
  c->add_flag("--json", options->json, "print the result as JSON");
  c->add_flag("--json-log", options->json_log, "print one line of JSON per step as well");
  c->callback([options] { run(*options); });
}

}  // namespace calotype::cli
