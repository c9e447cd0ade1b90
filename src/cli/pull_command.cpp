#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/terminal.h"
#include "cli/transfer_progress.h"
#include "hub/pull.h"
#include "pipeline/memory_plan.h"

namespace calotype::cli {
namespace {

struct Options {
  std::string repo, revision = "main", target, endpoint;
  std::vector<std::string> include;
};

void print_plan(const hub::PullPlan& plan) {
  print_note(fmt::format("{} at {}: {} files, {}", plan.source, plan.repository.commit.substr(0, 12), plan.files.size(),
                         pipeline::bytes_text(plan.bytes)));
  for (const std::string& left_out : plan.left_out) print_note("not fetched: " + left_out);
  const hub::Licence& licence = plan.licence;
  if (licence.title().empty())
    print_warning("its model card names no licence; read " + plan.source + " before you use it");
  else
    print_note(fmt::format("licence: {}{}", licence.title(), licence.link.empty() ? "" : " (" + licence.link + ")"));
}

void pull(const Options& options) {
  hub::HubAccess access = hub::hub_access();
  if (!options.endpoint.empty()) access.endpoint = options.endpoint;
  access.cancel = &interrupt_token();
  const hub::PullResult result = hub::pull(options.repo, {.revision = options.revision,
                                                          .include = options.include,
                                                          .target = options.target,
                                                          .access = access,
                                                          .on_plan = print_plan,
                                                          .progress = transfer_progress()});
  if (result.kept > 0) print_note(fmt::format("{} files were here already", result.kept));
  fmt::print("{}\n", result.folder.string());
}

}  // namespace

void add_pull(CLI::App& app) {
  CLI::App* command = app.add_subcommand("pull", "Fetch a model repository from Hugging Face or another hub");
  auto options = std::make_shared<Options>();
  command->add_option("repository", options->repo, "OWNER/NAME, for example black-forest-labs/FLUX.1-schnell")
      ->required();
  command->add_option("--revision", options->revision, "branch, tag or commit")->capture_default_str();
  command
      ->add_option(
          "--include", options->include,
          "only files whose whole path matches such a pattern, for example 'vae/*'; may be given several times; "
          "without it weights in formats that are not read here and second copies stay out")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1)
      ->allow_extra_args(false);
  command->add_option("--target", options->target,
                      "folder to put the files in; without it models/OWNER/NAME in $CALOTYPE_DATA, else in "
                      "~/.local/share/calotype, where --model OWNER/NAME finds it");
  command->add_option("--endpoint", options->endpoint,
                      "the hub's address; without it $HF_ENDPOINT or https://huggingface.co");
  command->footer("A token for gated and private repositories is taken from $HF_TOKEN or from `hf auth login`.");
  command->callback([options] { pull(*options); });
}

}  // namespace calotype::cli
