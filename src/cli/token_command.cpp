#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "store/store.h"

namespace calotype::cli {

namespace {

struct Options {
  store::StoreOptions store;
  std::string name = "token", id;
};

void create(const Options& o) {
  const store::NewToken made = store::Store::open(o.store).tokens->create(o.name);
  fmt::print("Made token {} ({}). It is shown this once:\n{}\n", made.token.id, base::printable(made.token.name),
             made.plain);
}

void list(const Options& o) {
  const std::vector<store::Token> tokens = store::Store::open(o.store).tokens->list();
  if (tokens.empty()) print_note("there are no tokens; `calotype token create` makes one");
  for (const store::Token& token : tokens)
    fmt::print("{}  {}…  made {}  used {}  {}\n", token.id, token.hint, store::rfc3339(token.created_at).substr(0, 19),
               token.last_used_at ? store::rfc3339(*token.last_used_at).substr(0, 16) : "never",
               base::printable(token.name));
}

void revoke(const Options& o) {
  base::check(store::Store::open(o.store).tokens->revoke(o.id), base::ErrorKind::not_found,
              "there is no token {}; `calotype token list` shows them", base::printable(o.id));
  fmt::print("Revoked token {}.\n", base::printable(o.id));
}

CLI::App* add_action(CLI::App& command, const char* name, const char* help, const std::shared_ptr<Options>& options,
                     void (*run)(const Options&)) {
  CLI::App* action = command.add_subcommand(name, help);
  action->add_option("--data", options->store.data, "folder of database and keys")
      ->envname("CALOTYPE_DATA_DIR")
      ->capture_default_str();
  action->add_option("--database", options->store.database, "sqlite:PATH or postgresql://…")
      ->envname("CALOTYPE_DATABASE");
  action->callback([options, run] { run(*options); });
  return action;
}

}  // namespace

void add_token(CLI::App& app) {
  CLI::App* command = app.add_subcommand("token", "Tokens for the server");
  command->require_subcommand(1);
  auto options = std::make_shared<Options>();
  add_action(*command, "create", "Make a token; its text is the last line printed", options, create)
      ->add_option("--name", options->name, "what or whom it is for");
  add_action(*command, "list", "Show all tokens", options, list);
  add_action(*command, "revoke", "Make a token invalid", options, revoke)
      ->add_option("id", options->id, "id or first characters, see list")
      ->required();
}

}  // namespace calotype::cli
