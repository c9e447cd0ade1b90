// What the commands say to the person in front of them, all on stderr; stdout carries results only.
//
//   generate(options, {.progress = terminal_progress(), .cancel = &interrupt_token()});
#pragma once

#include <string>
#include <string_view>

#include "base/cancel.h"
#include "base/progress.h"

namespace calotype::cli {

/// A bar with step, seconds per step and time left on a terminal; elsewhere one line per stage and per tenth of it.
/// Where the total is unknown (0), a terminal shows the count and nothing is printed elsewhere.
base::Progress terminal_progress();

/// A reporter that says nothing.
inline base::Progress no_progress() { return {}; }

/// Requested by the first Ctrl-C or SIGTERM; the second ends the process at once.
base::CancelToken& interrupt_token();

void print_error(std::string_view text);
void print_warning(std::string_view text);
void print_note(std::string_view text);

/// "1 h 02 min", "3 min 20 s", "12 s", "0.8 s".
std::string duration_text(double seconds);

}  // namespace calotype::cli
