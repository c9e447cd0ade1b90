// Options of a command from a file, for those that neither the command line nor the environment gave.
//
//   # serve.toml
//   host = "0.0.0.0"
//   token = ["s3cret"]
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace calotype::cli {

/// TOML or INI: names are the command's long options without dashes. Nothing for an empty path. Errors: not_found,
/// bad_input naming the file and the name that is no option.
void apply_settings_file(CLI::App& command, const std::string& path);

}  // namespace calotype::cli
