// A file of prompts: what comes out is valid, not blank, and reads the same when it is written to a file again.
#include "cli/prompt_file.h"

#include "base/utf8.h"
#include "fuzz.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  std::vector<std::string> prompts;
  if (!accepted([&] { prompts = cli::parse_prompts(input, kSource); })) return;
  require(!prompts.empty() && prompts.size() <= cli::kMaxPrompts, "there are as many prompts as promised");
  std::string file = "\xEF\xBB\xBF";
  for (const std::string& prompt : prompts) {
    require(!base::first_broken_utf8(prompt), "prompts are valid UTF-8");
    require(prompt.find('\n') == std::string::npos, "a prompt is one line");
    require(prompt.find_first_not_of(" \t\r") != std::string::npos, "no prompt is blank");
    file += prompt + "\r\n";
  }
  require(cli::parse_prompts(file, kSource) == prompts, "prompts survive writing and reading");
}

}  // namespace calotype::fuzz
