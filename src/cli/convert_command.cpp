#include <fmt/ranges.h>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "pipeline/convert.h"
#include "pipeline/memory_plan.h"

namespace calotype::cli {

using base::ErrorKind;
using pipeline::ConvertOptions;
using pipeline::Layout;
using weights::Component;

namespace {

struct Options {
  std::string in, out, type, layout = "bfl", part;
  bool force = false;
};

std::optional<files::TensorType> parse_type(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const auto type = files::type_from_name(text);
  base::check(type.has_value(), ErrorKind::bad_input, "--type is {}, expected one of {}", base::printable(text),
              pipeline::kConvertTypes);
  return type;
}

Layout parse_layout(const std::string& text) {
  if (text == "bfl") return Layout::bfl;
  if (text == "diffusers") return Layout::diffusers;
  base::fail(ErrorKind::bad_input, "--layout is {}, expected bfl or diffusers", base::printable(text));
}

std::optional<Component> parse_part(const std::string& text) {
  if (text.empty()) return std::nullopt;
  if (text == "transformer") return Component::transformer;
  if (text == "vae") return Component::vae;
  if (text == "clip") return Component::clip;
  if (text == "t5") return Component::t5;
  base::fail(ErrorKind::bad_input, "--part is {}, expected transformer, vae, clip or t5", base::printable(text));
}

void convert(const Options& options) {
  const ConvertOptions settings{
      .type = parse_type(options.type),
      .layout = parse_layout(options.layout),
      .part = parse_part(options.part),
      .existing = options.force ? ConvertOptions::Existing::replace : ConvertOptions::Existing::refuse,
      .progress = terminal_progress(),
      .cancel = &interrupt_token()};
  const pipeline::ConvertResult result = pipeline::convert(options.in, options.out, settings);
  for (const std::string& note : result.notes) print_note(note);
  for (const pipeline::WrittenFile& file : result.files) {
    std::vector<std::string> types;
    for (const auto& [type, count] : file.types) types.push_back(fmt::format("{} {}", count, files::name(type)));
    fmt::print("{}: {}, {} ({})\n", file.path.string(), weights::name(file.component), pipeline::bytes_text(file.bytes),
               fmt::join(types, ", "));
  }
}

}  // namespace

void add_convert(CLI::App& app) {
  CLI::App* command = app.add_subcommand("convert", "Write a model in another layout, file format or number type");
  auto options = std::make_shared<Options>();
  command->add_option("in", options->in, "file or folder with a FLUX.1 model or parts of one, in any layout")
      ->required();
  command
      ->add_option("out", options->out,
                   "NAME.safetensors or NAME.gguf for one part, any other name for a folder with all parts")
      ->required();
  command->add_option("--type", options->type,
                      fmt::format("one of {}; those from q8_0 on go to GGUF; without it every tensor keeps its own",
                                  pipeline::kConvertTypes));
  command
      ->add_option("--layout", options->layout,
                   "bfl: names and files as Black Forest Labs and ComfyUI have them; diffusers")
      ->capture_default_str();
  command->add_option("--part", options->part, "transformer, vae, clip or t5, when only that one is wanted");
  command->add_flag("--force", options->force, "replace the output when it exists");
  command->callback([options] { convert(*options); });
}

}  // namespace calotype::cli
