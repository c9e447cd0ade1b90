#include <CLI/CLI.hpp>

#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/utf8.h"
#include "cli/commands.h"
#include "cli/lora_option.h"
#include "cli/model_options.h"
#include "cli/picture_file.h"
#include "cli/prompt_file.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "image/image_codec.h"
#include "pipeline/processor.h"

namespace calotype::cli {
namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;
using pipeline::GenerateOptions;
using pipeline::GenerateResult;

namespace {

struct Options {
  ModelOptions model;
  GenerateOptions generate;
  OutputOptions output;
  std::string prompt, noise = "torch", seed;
  fs::path prompt_file, image, mask, preview, save_latents, lora_folder;
  std::vector<std::string> loras;
  bool json = false;
};

/// CLI11's own conversion would wrap −1 and round 1e20; a seed is exact or refused.
std::optional<uint64_t> parse_seed(const std::string& text) {
  if (text.empty() || text == "random") return std::nullopt;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  base::check(error == std::errc() && end == text.data() + text.size(), ErrorKind::bad_input,
              "--seed is {}, expected a whole number from 0 to 18446744073709551615 or \"random\"",
              base::printable(text));
  return value;
}

std::vector<GenerateOptions> jobs(const Options& options) {
  base::check(!options.prompt.empty() || !options.prompt_file.empty(), ErrorKind::bad_input,
              "no prompt; give one, or --prompt-file FILE with one a line");
  base::check(options.prompt.empty() || options.prompt_file.empty(), ErrorKind::bad_input,
              "there are a prompt and a --prompt-file; give one of them");
  GenerateOptions base_options = options.generate;
  const auto noise = flux::noise_stream(options.noise);
  base::check(noise.has_value(), ErrorKind::bad_input, "--noise is {}, expected torch, bfl or comfy",
              base::printable(options.noise));
  base_options.noise = *noise;
  base_options.seed = parse_seed(options.seed);
  if (!options.image.empty())
    base_options.start = std::make_shared<const image::RgbImage>(image::decode(options.image));
  if (!options.mask.empty())
    base_options.mask = std::make_shared<const image::RgbImage>(image::decode_mask(options.mask));
  for (const std::string& lora : options.loras) base_options.loras.push_back(parse_lora(lora, options.lora_folder));
  std::vector<std::string> prompts;
  if (!options.prompt_file.empty()) {
    const fs::path file = options.prompt_file == "-" ? fs::path("/dev/stdin") : options.prompt_file;
    prompts = parse_prompts(base::read_file(file, kMaxPromptFileBytes), file.string());
  } else {
    prompts.push_back(options.prompt);
  }
  std::vector<GenerateOptions> list;
  for (const std::string& prompt : prompts) {
    const auto broken = base::first_broken_utf8(prompt);
    base::check(!broken, ErrorKind::bad_input, "the prompt is not valid UTF-8: byte {} is 0x{:02x}", broken.value_or(0),
                static_cast<unsigned char>(prompt[broken.value_or(0)]));
    list.push_back(base_options);
    list.back().prompt = prompt;
  }
  return list;
}

void check_output(const Options& options) {
  output_format(options.output);
  if (!options.preview.empty()) output_format({.output = options.preview});
  for (const fs::path& path : {options.output.output, options.save_latents, options.preview})
    if (!path.empty()) check_place(path);
}

json result_json(const GenerateResult& result, const std::vector<std::string>& paths) {
  json pictures = json::array();
  for (size_t i = 0; i < result.pictures.size(); ++i)
    pictures.push_back({{"path", paths[i]}, {"seed", result.pictures[i].seed}});
  json out = settings_json(result, *result.used.seed);
  out.update({{"pictures", pictures},
              {"seconds", result.seconds},
              {"peak_memory_bytes", result.peak_memory},
              {"warnings", result.warnings}});
  json loras = json::array();
  for (const adapters::AppliedLora& lora : result.loras)
    loras.push_back(
        {{"path", lora.path.string()}, {"scale", lora.scale}, {"applied", lora.applied}, {"total", lora.total}});
  out["loras"] = loras;
  return out;
}

class Run {
 public:
  explicit Run(const Options& options) : options_(options) {}

  void all() {
    std::vector<GenerateOptions> list = jobs(options_);
    check_output(options_);
    const pipeline::RuntimeOptions runtime = runtime_options(options_.model);
    pipeline::TextToImage flux(pipeline::open_bundle(options_.model.paths), runtime);
    for (const GenerateOptions& job : list) flux.checked(job);  // every mistake before the first picture
    print_note(fmt::format("{}: {} in {} on {}", flux.bundle().name, flux.bundle().variant().name,
                           pipeline::dtype_name(flux.dtype()), pipeline::device_text(runtime.device)));
    if (list.size() > 1) flux.encode_ahead(list, hooks());
    for (size_t i = 0; i < list.size(); ++i)
      one(flux, list[i], numbered(options_.output.output, static_cast<int>(i), static_cast<int>(list.size())));
  }

 private:
  pipeline::GenerateHooks hooks() const {
    return {.progress = terminal_progress(), .cancel = &interrupt_token(), .preview = {}, .latents = {}};
  }

  void one(pipeline::TextToImage& flux, const GenerateOptions& job, const fs::path& output) {
    GenerateResult plan = flux.checked(job);
    GenerateOptions fixed = job;
    fixed.seed = plan.used.seed;  // drawn once, so that saved latents name the seed that made them
    pipeline::GenerateHooks run = hooks();
    if (!options_.preview.empty())
      run.preview = [&](int, const image::RgbImage& picture) {
        write_picture(options_.preview, picture, {}, {.output = options_.preview});
      };
    std::optional<pipeline::Latents> finished;
    run.latents = [&](const pipeline::Latents& latents) {
      finished = latents;
      if (!options_.save_latents.empty()) write_latents(options_.save_latents, latents, flux.checked(fixed));
    };
    GenerateResult result;
    try {
      result = flux.generate(fixed, run);
    } catch (const std::exception& error) {
      if (finished && options_.save_latents.empty()) rescue(*finished, flux.checked(fixed), output);
      throw;
    }
    write(result, output);
  }

  static void rescue(const pipeline::Latents& latents, const GenerateResult& result, const fs::path& output) {
    const fs::path path = output.string() + ".latents.safetensors";
    write_latents(path, latents, result);
    print_note(fmt::format(
        "sampling was finished; its latents are in {0}: continue with `calotype decode {0}` and --model or --vae",
        path.string()));
  }

  void write(const GenerateResult& result, const fs::path& output) const {
    std::vector<std::string> paths;
    for (size_t i = 0; i < result.pictures.size(); ++i) {
      const pipeline::Picture& picture = result.pictures[i];
      const fs::path path = numbered(output, static_cast<int>(i), result.used.count);
      write_picture(path, picture.image,
                    {.parameters = parameters_text(result, picture.seed),
                     .settings_json = settings_json(result, picture.seed).dump(),
                     .software = std::string(kProgramVersion)},
                    options_.output);
      paths.push_back(path.string());
    }
    for (const std::string& warning : result.warnings) print_warning(warning);
    if (options_.json)
      std::cout << result_json(result, paths).dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
    else
      for (size_t i = 0; i < paths.size(); ++i) fmt::print("{}  seed {}\n", paths[i], result.pictures[i].seed);
  }

  const Options& options_;
};

}  // namespace

void add_generate(CLI::App& app) {
  CLI::App* command = app.add_subcommand("generate", "Draw pictures from a prompt");
  auto options = std::make_shared<Options>();
  GenerateOptions& g = options->generate;
  command->add_option("prompt", options->prompt, "what to draw, in words; any length");
  command->add_option("--prompt-file", options->prompt_file,
                      "file with one prompt a line, - for standard input; the model stays loaded");
  add_model_options(*command, options->model);
  command->add_option("--width", g.width,
                      "pixels, a multiple of 16; default: what the model was made for, 1024 for FLUX.1");
  command->add_option("--height", g.height,
                      "pixels, a multiple of 16; default: what the model was made for, 1024 for FLUX.1");
  command->add_option("--steps", g.steps, "sampling steps, 0 = 4 for schnell, 28 for dev")->capture_default_str();
  command->add_option("--guidance", g.guidance, "how closely dev follows the prompt, default 3.5");
  command->add_option("--negative-prompt", g.negative_prompt, "what to avoid; needs --true-cfg");
  command->add_option("--true-cfg", g.true_cfg, "classifier-free guidance above 1: two passes a step")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "whole number; the same seed gives the same picture. Default: random");
  command->add_option("--count", g.count, "pictures, with seeds seed, seed + 1, …")->capture_default_str();
  command->add_option("--max-sequence-length", g.max_sequence_length, "T5 tokens, 0 = 256 for schnell, 512 for dev")
      ->capture_default_str();
  CLI::Option* start =
      command->add_option("--image", options->image, "picture to start from; its shape is kept unless a size is given");
  command
      ->add_option("--mask", options->mask,
                   "picture of the size of --image: white, or what is transparent, is drawn anew")
      ->needs(start);
  command->add_option("--strength", g.strength, "with --image: how much of it is given up, above 0 to 1")
      ->capture_default_str()
      ->needs(start);
  command->add_option("--lora", options->loras, "FILE or FILE:SCALE of an adapter, -10 to 10; several are added up")
      ->allow_extra_args(false);
  command->add_option("--lora-dir", options->lora_folder, "folder in which --lora looks for names without a slash");
  command->add_option("--noise", options->noise, "whose noise a seed stands for: torch, bfl or comfy")
      ->capture_default_str();
  command->add_option("-o,--output", options->output.output, "file to write; several pictures are numbered")
      ->capture_default_str();
  command->add_option("--format", options->output.format, "png, jpeg or webp; default: by the ending of --output");
  command->add_option("--quality", options->output.quality, "of jpeg and webp, 1 to 100 (webp 100 is lossless)")
      ->capture_default_str();
  command->add_flag("!--no-metadata", options->output.metadata, "leave prompt and settings out of the file");
  command->add_flag("!--no-ai-tag", options->output.ai_tag, "leave out the tag that says a model made the picture");
  command->add_option("--preview", options->preview, "file that shows the forming picture after each step");
  command->add_option("--save-latents", options->save_latents, "also write the latents, for `calotype decode`");
  command->add_flag("--json", options->json, "print the result as JSON");
  command->callback([options] {
    choose_model(options->model);
    Run(*options).all();
  });
}

}  // namespace calotype::cli
