// How long work tells where it stands. The library reports events; the command line or a server decides how they look.
//
//   report({.stage = "denoise", .done = step, .total = steps});
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace calotype::base {

struct ProgressEvent {
  std::string_view stage;  ///< "load", "text", "denoise", "decode", "convert", …
  int64_t done = 0;        ///< units finished, 0 when the stage starts
  int64_t total = 0;       ///< units in all, 0 when nobody knows yet
  std::string note = {};   ///< a few words beside the bar, for example "loss 0.412"
};

/// Called on the working thread; must be quick and must not throw. An empty function reports nothing.
using Progress = std::function<void(const ProgressEvent&)>;

}  // namespace calotype::base
