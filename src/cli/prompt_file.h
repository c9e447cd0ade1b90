// Files of prompts: one prompt a line, as `--prompt-file` reads them.
//
//   parse_prompts("a cat\r\n\r\na dog", "prompts.txt") == {"a cat", "a dog"}
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace calotype::cli {

inline constexpr uint64_t kMaxPromptFileBytes = 16 << 20;
inline constexpr size_t kMaxPrompts = 10'000;

/// The lines of UTF-8 text, without their line feeds (or carriage return and line feed), a byte order mark at the
/// start, and lines of nothing but blanks. Everything else is the prompt's, control characters too. `source` names the
/// file in messages. Errors: bad_input for broken UTF-8 (with line and byte), UTF-16, no prompt at all, and above the
/// limits.
std::vector<std::string> parse_prompts(std::string_view text, std::string_view source);

}  // namespace calotype::cli
