// A prompt as both text encoders read it, and what did not fit.
//
//   PromptTokens tokens = tokenize("a lighthouse at dusk", clip_tokenizer, t5_tokenizer, {.t5_tokens = 512});
//
// Pure functions.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/clip_bpe.h"
#include "text/t5_sentencepiece.h"

namespace calotype::text {

struct PromptLimits {
  int64_t clip_tokens = 77;  ///< with start and end
  int64_t t5_tokens = 512;   ///< with end
};

struct PromptTokens {
  std::vector<int64_t> clip;           ///< start, prompt, end, padding: clip_tokens long
  std::vector<int64_t> t5;             ///< prompt, end, padding: t5_tokens long
  int64_t clip_used = 0, t5_used = 0;  ///< tokens that the prompt needs, with start and end, before cutting
};

/// Errors: bad_input for broken UTF-8, with the byte offset.
PromptTokens tokenize(std::string_view prompt, const ClipTokenizer& clip, const T5Tokenizer& t5, PromptLimits limits);

}  // namespace calotype::text
