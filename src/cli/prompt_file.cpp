#include "cli/prompt_file.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace calotype::cli {

using base::ErrorKind;

std::vector<std::string> parse_prompts(std::string_view text, std::string_view source) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF", kUtf16Little = "\xFF\xFE", kUtf16Big = "\xFE\xFF";
  base::check(text.size() <= kMaxPromptFileBytes, ErrorKind::bad_input, "{}: {} bytes, at most {} are accepted", source,
              text.size(), kMaxPromptFileBytes);
  base::check(!text.starts_with(kUtf16Little) && !text.starts_with(kUtf16Big), ErrorKind::bad_input,
              "{}: line 1 starts like UTF-16, expected UTF-8; save the file as UTF-8", source);
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());

  std::vector<std::string> prompts;
  for (size_t number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (const auto broken = base::first_broken_utf8(line))
      base::fail(ErrorKind::bad_input,
                 "{}: line {} is not valid UTF-8 at its byte {} (0x{:02x}); save the file as UTF-8", source, number,
                 *broken + 1, static_cast<unsigned char>(line[*broken]));
    base::check(prompts.size() < kMaxPrompts, ErrorKind::bad_input,
                "{}: line {} is one prompt too many, at most {} are accepted; split the file", source, number,
                kMaxPrompts);
    prompts.emplace_back(line);
  }
  base::check(!prompts.empty(), ErrorKind::bad_input, "{}: holds no prompt, expected one a line", source);
  return prompts;
}

}  // namespace calotype::cli
