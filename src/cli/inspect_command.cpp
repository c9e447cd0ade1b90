#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <nlohmann/json.hpp>

#include "adapters/lora_file.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "pipeline/inspect.h"
#include "pipeline/memory_plan.h"

namespace calotype::cli {
using nlohmann::json;
using pipeline::FileReport;
using pipeline::PartReport;

namespace {

struct Options {
  std::vector<std::string> paths;
  bool check = false, json = false;
};

/// Layers that an adapter file (LoRA) corrects; 0 for any other file.
int adapted_layers(const FileReport& file) {
  if (!file.parts.empty() || file.unknown_tensors == 0) return 0;
  try {
    return adapters::read_adapter(file.path).stored;
  } catch (const base::Error&) {
    return 0;
  }
}

json to_json(const FileReport& file) {
  json parts = json::array();
  for (const PartReport& part : file.parts)
    parts.push_back({{"part", weights::name(part.component)},
                     {"variant", part.variant},
                     {"tensors", part.tensors},
                     {"parameters", part.parameters},
                     {"bytes", part.bytes},
                     {"types", part.types},
                     {"problems", part.problems},
                     {"not_finite", part.not_finite}});
  return {{"path", file.path},
          {"container", file.container},
          {"bytes", file.bytes},
          {"parts", parts},
          {"adapter_layers", adapted_layers(file)},
          {"unknown_tensors", file.unknown_tensors}};
}

void print_part(const PartReport& part, const Options& options) {
  std::vector<std::string> types;
  for (const auto& [type, count] : part.types) types.push_back(fmt::format("{} {}", count, type));
  fmt::print("  {}{}\n", weights::name(part.component), part.variant.empty() ? "" : ", " + part.variant);
  fmt::print("    {} parameters in {} tensors ({}), {}\n", part.parameters, part.tensors, fmt::join(types, ", "),
             pipeline::bytes_text(part.bytes));
  for (const std::string& problem : part.problems) fmt::print("    problem: {}\n", problem);
  for (const std::string& tensor : part.not_finite)
    fmt::print("    not finite: {} holds NaN or infinity\n", base::printable(tensor));
  if (options.check && part.not_finite.empty()) fmt::print("    every value is finite\n");
}

void print(const FileReport& file, const Options& options) {
  fmt::print("{}: {}, {}\n", file.path, file.container, pipeline::bytes_text(file.bytes));
  for (const PartReport& part : file.parts) print_part(part, options);
  if (const int layers = adapted_layers(file))
    fmt::print("  an adapter (LoRA) of {} layers, for `calotype generate --lora`\n", layers);
  else if (file.unknown_tensors)
    fmt::print("  {} tensor{} of no FLUX.1 part, for example {}\n", file.unknown_tensors,
               file.unknown_tensors == 1 ? "" : "s", file.first_unknown);
}

void inspect(const Options& options) {
  std::vector<FileReport> reports;
  for (const std::string& path : options.paths) {
    auto more = pipeline::inspect(
        path, {.check_values = options.check, .progress = options.check ? terminal_progress() : no_progress()});
    std::ranges::move(more, std::back_inserter(reports));
  }
  const std::vector<std::string> missing = pipeline::missing_parts(reports);
  bool sound = true;
  for (const FileReport& file : reports)
    for (const PartReport& part : file.parts) sound &= part.problems.empty() && part.not_finite.empty();
  if (options.json) {
    json list = json::array();
    for (const FileReport& file : reports) list.push_back(to_json(file));
    fmt::print("{}\n", json{{"files", list}, {"missing", missing}, {"sound", sound}}.dump(
                           2, ' ', false, json::error_handler_t::replace));
  } else {
    for (const FileReport& file : reports) print(file, options);
    if (missing.empty())
      fmt::print("Complete: everything needed to generate is here.\n");
    else
      fmt::print("Missing to generate: {}.\n", fmt::join(missing, ", "));
  }
  base::check(sound, base::ErrorKind::corrupt_file, "a part is damaged or incomplete, see above");
}

}  // namespace

void add_inspect(CLI::App& app) {
  CLI::App* command = app.add_subcommand("inspect", "Say what model files are and whether they are whole");
  auto options = std::make_shared<Options>();
  command->add_option("paths", options->paths, "files or folders")->required();
  command->add_flag("--check", options->check, "read every number and report NaN and infinity");
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options] { inspect(*options); });
}

}  // namespace calotype::cli
