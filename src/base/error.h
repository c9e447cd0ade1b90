// The one exception type of the project: a kind, and a sentence that a user can act on.
//
//   base::check(steps > 0, ErrorKind::bad_input, "--steps is {}, expected 1 to 1000", steps);
//   base::fail(ErrorKind::corrupt_file, "{}: header claims {} bytes, the file has {}", path, claimed, size);
//
// A message names the file, tensor or field, what was expected, what was found, and what to do. Libraries never print,
// exit or abort; main() catches once. Thread-safe.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace calotype::base {

enum class ErrorKind {
  bad_input,
  not_found,
  corrupt_file,
  unsupported,
  out_of_memory,
  disk_full,  ///< or a quota is used up; trying again later may work
  conflict,
  canceled,
  internal
};

/// Lower-case word for programs: "bad_input", "not_found", …
std::string_view name(ErrorKind kind);

/// Process exit code: 130 canceled, 1 internal (our fault), 2 everything the caller can mend.
int exit_code(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void check(bool condition, ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) [[unlikely]]
    throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// Foreign text made safe to show on one line: control characters, those that turn the direction of writing and broken
/// UTF-8 escaped, cut after about `limit` bytes.
std::string printable(std::string_view text, size_t limit = 120);

}  // namespace calotype::base
