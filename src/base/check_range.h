// Numbers that users give, within bounds.
//
//   check_range("steps", options.steps, 1, 1000);  // "--steps is 0, expected 1 to 1000"
#pragma once

#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace calotype::base {

/// `option` without its dashes; both bounds are allowed, NaN is not. Errors: bad_input. Thread-safe.
template <typename T>
void check_range(std::string_view option, T value, std::type_identity_t<T> low, std::type_identity_t<T> high) {
  check(value >= low && value <= high, ErrorKind::bad_input, "--{} is {}, expected {} to {}", option, value, low, high);
}

}  // namespace calotype::base
