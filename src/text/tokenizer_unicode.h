// Unicode as the Hugging Face tokenizers see it: classes, lower case, NFC and grapheme clusters.
// Their Rust libraries carry tables of several Unicode versions; utf8proc's answer is corrected where it differs.
//
//   nfc("e\u0301") == "\u00e9";   is_letter(U'字');   lower(U'İ') == U"i\u0307"
//
// All text must be valid UTF-8. Thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace calotype::text {

/// White_Space: `\s` of the regular expressions and Rust's char::is_whitespace.
bool is_space(char32_t code);
/// General category L.
bool is_letter(char32_t code);
/// General category N.
bool is_number(char32_t code);
/// Full lower case of one character, without context (no final sigma).
std::u32string lower(char32_t code);

std::string nfc(std::string_view text);

/// Bytes of the extended grapheme cluster that `text` starts with; 0 when it is empty.
size_t grapheme_length(std::string_view text);

}  // namespace calotype::text
