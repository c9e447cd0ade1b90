#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/terminal.h"
#include "cli/transfer_progress.h"
#include "hub/push.h"
#include "pipeline/memory_plan.h"

namespace calotype::cli {
namespace {

struct Options {
  std::string source, repo, message = hub::PushOptions{}.message, endpoint;
  bool hidden = false;
};

void push(const Options& options) {
  using Visibility = hub::HubClient::Visibility;
  hub::HubAccess access = hub::hub_access();
  if (!options.endpoint.empty()) access.endpoint = options.endpoint;
  access.cancel = &interrupt_token();
  const hub::PushResult result = hub::push(options.source, options.repo,
                                           {.visibility = options.hidden ? Visibility::hidden : Visibility::open,
                                            .message = options.message,
                                            .access = access,
                                            .progress = transfer_progress()});
  if (options.hidden && !result.created) print_warning("the repository was there already; --private left it as it is");
  print_note(fmt::format("{} files, {}", result.files, pipeline::bytes_text(result.bytes)));
  fmt::print("{}\n", result.commit.empty() ? result.page : result.commit);
}

}  // namespace

void add_push(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("push", "Send a model or adapter to a repository of Hugging Face or another hub");
  auto options = std::make_shared<Options>();
  command->add_option("source", options->source, "folder or file; hidden and unfinished files stay out")->required();
  command->add_option("repository", options->repo, "OWNER/NAME, made when it is not there")->required();
  command->add_flag("--private", options->hidden, "make the repository private");
  command->add_option("--message", options->message, "of the commit")->capture_default_str();
  command->add_option("--endpoint", options->endpoint,
                      "the hub's address; without it $HF_ENDPOINT or https://huggingface.co");
  command->footer("The token that may write is taken from $HF_TOKEN or from `hf auth login`.");
  command->callback([options] { push(*options); });
}

}  // namespace calotype::cli
