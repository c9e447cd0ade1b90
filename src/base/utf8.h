// UTF-8, decoded strictly (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
//
//   for (size_t i = 0; i < text.size();) { auto c = decode_utf8(text, i); use(c.code); i += c.length; }
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace calotype::base {

struct Utf8Char {
  char32_t code = 0xFFFD;  ///< U+FFFD where the bytes are broken
  size_t length = 1;       ///< bytes taken, at least 1
  bool valid = false;
};

/// The character at byte `at`; `at` must be below text.size().
Utf8Char decode_utf8(std::string_view text, size_t at);

void append_utf8(std::string& out, char32_t code);

/// Byte offset of the first broken sequence, or nothing when all of `text` is valid.
std::optional<size_t> first_broken_utf8(std::string_view text);

}  // namespace calotype::base
