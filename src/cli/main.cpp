#include <CLI/CLI.hpp>

#include <c10/util/Exception.h>

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

}  // namespace

int main(int argc, char** argv) {
  using calotype::base::ErrorKind;
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
