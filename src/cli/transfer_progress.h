// How far a transfer of files is, on stderr: bytes, speed and time left.
#pragma once

#include "base/progress.h"

namespace calotype::cli {

/// For events that count bytes: one line that is overwritten on a terminal, elsewhere one line per tenth of the whole.
base::Progress transfer_progress();

}  // namespace calotype::cli
