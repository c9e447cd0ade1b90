#include <CLI/CLI.hpp>

#include <c10/util/Exception.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "cli/version.h"

namespace {

int report(std::string_view message, calotype::base::ErrorKind kind) {
  calotype::cli::print_error(message);
  return calotype::base::exit_code(kind);
}

/// What is wrong with a command line. CLI11's own text names no unknown command, does not say that a number was
/// expected, and lists what is too much from the end.
std::string mistake(const CLI::App& app, const CLI::App& command, const CLI::Error& error) {
  const auto is = [&](CLI::ExitCodes code) { return error.get_exit_code() == static_cast<int>(code); };
  const std::vector<std::string> unexpected = app.remaining(/*recurse=*/true);
  std::vector<std::string> names;
  for (const CLI::App* each : command.get_subcommands({})) names.push_back(each->get_name());
  if (is(CLI::ExitCodes::RequiredError) && !names.empty())
    return fmt::format("{}, expected one of {}",
                       unexpected.empty() ? std::string("no command was given")
                                          : calotype::base::printable(unexpected.front()) + " is no command",
                       fmt::join(names, ", "));
  if (is(CLI::ExitCodes::ExtrasError) && !unexpected.empty()) {
    const bool only_words =
        std::ranges::none_of(unexpected, [](const std::string& word) { return word.starts_with('-'); });
    const std::string list = fmt::format("{}", fmt::join(unexpected, " "));
    return fmt::format("not expected: {}{}", calotype::base::printable(list),
                       only_words ? "; words that belong together need quotes around them" : "");
  }
  constexpr std::string_view kNotConverted = "Could not convert: ";
  const std::string text = error.what();
  if (text.starts_with(kNotConverted)) {
    const std::string given = text.substr(kNotConverted.size());  // "--steps = x"
    const CLI::Option* option = command.get_option_no_throw(given.substr(0, given.find(' ')));
    const bool fractions = option && option->get_type_name().starts_with("FLOAT");
    return fmt::format("{}, expected a {}number", calotype::base::printable(given), fractions ? "" : "whole ");
  }
  return text;
}

std::string mistake_and_help(const CLI::App* app, const CLI::Error& error) {
  std::string name = app->get_name();
  const CLI::App* command = app;
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    name += " " + command->get_name();
  }
  return fmt::format("error: {}\n`{} --help` lists what it takes\n", mistake(*app, *command, error), name);
}

/// Threads that wait for each other in a busy loop make a step ten times slower as soon as another program wants a core
/// (bench/results.md). The runtime reads its setting before main() begins, so the program starts once more with it.
void wait_without_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  ::setenv("GOMP_SPINCOUNT", "2000", /*overwrite=*/0);
  ::execv("/proc/self/exe", argv);  // where that fails, the program is merely slower
}

}  // namespace

int main(int argc, char** argv) {
  using calotype::base::ErrorKind;
  wait_without_spinning(argv);
  // LibTorch then asks for huge pages: activations of a full-size model are gigabytes of fresh memory per step.
  ::setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);
  CLI::App app{"Calotype: FLUX.1 pictures from text, and training, on your own machine.", "calotype"};
  app.set_version_flag("--version", std::string(calotype::cli::kProgramVersion));
  app.require_subcommand(1);
  app.failure_message(mistake_and_help);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  calotype::cli::add_generate(app);
  calotype::cli::add_decode(app);
  calotype::cli::add_inspect(app);
  calotype::cli::add_convert(app);
  calotype::cli::add_train(app);
  calotype::cli::add_serve(app);
  calotype::cli::add_worker(app);
  calotype::cli::add_token(app);
  calotype::cli::add_pull(app);
  calotype::cli::add_push(app);
  calotype::cli::interrupt_token();  // from here on Ctrl-C ends work in an orderly way
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const calotype::base::Error& error) {
    return report(error.what(), error.kind());
  } catch (const std::bad_alloc&) {
    return report("out of memory; make the picture smaller or use a smaller model file", ErrorKind::out_of_memory);
  } catch (const c10::Error& error) {
    return report(error.what_without_backtrace(), ErrorKind::internal);
  } catch (const std::exception& error) {
    return report(error.what(), ErrorKind::internal);
  }
}
