#include <CLI/CLI.hpp>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/picture_file.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "pipeline/processor.h"
#include "vae/autoencoder.h"

namespace calotype::cli {
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

struct Options {
  ModelOptions model;
  OutputOptions output;
  fs::path latents;
};

void decode(const Options& options) {
  output_format(options.output);
  check_place(options.output.output);
  const StoredLatents stored = read_latents(options.latents);
  const pipeline::RuntimeOptions runtime = runtime_options(options.model);
  const pipeline::ModelBundle bundle = pipeline::open_partial_bundle(options.model.paths);
  const auto vae_index = bundle.parts.find(weights::Component::vae);
  base::check(vae_index != bundle.parts.end(), base::ErrorKind::not_found,
              "no VAE to decode with; give --model the model that made the latents, or --vae FILE");
  const vae::Autoencoder vae(vae_index->second,
                             {.dtype = runtime.dtype.value_or(at::kFloat), .device = runtime.device});
  const auto images = pipeline::decode_latents(
      vae, stored.latents_BChw,
      {.progress = terminal_progress(), .cancel = &interrupt_token(), .preview = {}, .latents = {}});
  const json settings = json::parse(stored.settings, nullptr, false);
  const int count = static_cast<int>(images.size());
  for (int i = 0; i < count; ++i) {
    const auto index = static_cast<size_t>(i);
    const fs::path path = numbered(options.output.output, i, count);
    const bool known = settings.is_array() && index < settings.size();
    write_picture(path, images[index],
                  {.parameters = {},
                   .settings_json = known ? settings[index].dump() : "",
                   .software = std::string(kProgramVersion)},
                  options.output);
    fmt::print("{}\n", path.string());
  }
}

}  // namespace

void add_decode(CLI::App& app) {
  CLI::App* command = app.add_subcommand("decode", "Turn saved latents into pictures");
  auto options = std::make_shared<Options>();
  command->add_option("latents", options->latents, "file written by generate --save-latents")->required();
  add_model_options(*command, options->model);
  command->add_option("-o,--output", options->output.output, "file to write; several pictures are numbered")
      ->capture_default_str();
  command->add_option("--format", options->output.format, "png, jpeg or webp; default: by the ending of --output");
  command->add_option("--quality", options->output.quality, "of jpeg and webp, 1 to 100 (webp 100 is lossless)")
      ->capture_default_str();
  command->callback([options] {
    use_pulled_model(options->model);
    decode(*options);
  });
}

}  // namespace calotype::cli
