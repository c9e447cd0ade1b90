// Progress bars as lines of text, exactly as tqdm writes them: clients of Replicate read progress from such lines.
//
//   tqdm_line(2, 4, 1.25)                       " 50%|█████     | 2/4 [00:01<00:01,  1.60it/s]"
//
// Source: tqdm 4.67 std.py, format_meter() with ten characters of bar. Pure function.
#pragma once

#include <cstdint>
#include <string>

namespace calotype::worker {

/// `done` of `total` (at least 1) after `elapsed` seconds; `postfix` stands behind the rate. The first `initial` of
/// them were done before the clock began.
std::string tqdm_line(int64_t done, int64_t total, double elapsed, const std::string& postfix = "",
                      int64_t initial = 0);

}  // namespace calotype::worker
