#include "cli/settings_file.h"

#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/error.h"

namespace calotype::cli {
using base::ErrorKind;

void apply_settings_file(CLI::App& command, const std::string& path) {
  if (path.empty()) return;
  base::check(std::filesystem::is_regular_file(path), ErrorKind::not_found, "--config {}: there is no such file", path);
  try {
    for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_file(path)) {
      if (item.name == "++" || item.name == "--") continue;  // CLI11's marks for the begin and end of a section
      CLI::Option* option = command.get_option_no_throw("--" + item.name);
      base::check(option && option->get_configurable() && item.parents.empty(), ErrorKind::bad_input,
                  "{}: {} is no option of calotype {}", path, base::printable(item.fullname()), command.get_name());
      if (option->count() > 0) continue;
      for (const std::string& value : item.inputs) option->add_result(value);
      option->run_callback();
    }
  } catch (const CLI::Error& error) {
    base::fail(ErrorKind::bad_input, "{}: {}", path, error.what());
  }
}

}  // namespace calotype::cli
