// The sub-commands of the program; each adds its options to the parser and runs when the parser reaches it.
//
// Commands throw base::Error; main() prints it and turns its kind into the exit status.
#pragma once

namespace CLI {
class App;
}

namespace calotype::cli {

void add_generate(CLI::App& app);
void add_decode(CLI::App& app);
void add_inspect(CLI::App& app);
void add_convert(CLI::App& app);
void add_train(CLI::App& app);
void add_serve(CLI::App& app);
void add_worker(CLI::App& app);
void add_token(CLI::App& app);
void add_pull(CLI::App& app);
void add_push(CLI::App& app);

}  // namespace calotype::cli
