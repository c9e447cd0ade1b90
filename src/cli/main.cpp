#include <CLI/CLI.hpp>

#include <c10/util/Exception.h>
#include <unistd.h>

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
