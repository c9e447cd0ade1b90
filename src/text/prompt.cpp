#include "text/prompt.h"

namespace calotype::text {

PromptTokens tokenize(std::string_view prompt, const ClipTokenizer& clip, const T5Tokenizer& t5, PromptLimits limits) {
  PromptTokens out;
  const auto clip_ids = clip.encode(prompt);
  const auto clip_size = static_cast<size_t>(limits.clip_tokens);
  out.clip_used = static_cast<int64_t>(clip_ids.size()) + 2;
  out.clip.push_back(clip.bos());
  for (const int32_t id : clip_ids)
    if (out.clip.size() + 1 < clip_size) out.clip.push_back(id);
  out.clip.push_back(clip.eos());
  out.clip.resize(clip_size, clip.pad());

  const auto t5_ids = t5.encode(prompt);
  const auto t5_size = static_cast<size_t>(limits.t5_tokens);
  out.t5_used = static_cast<int64_t>(t5_ids.size()) + 1;
  for (const int32_t id : t5_ids)
    if (out.t5.size() + 1 < t5_size) out.t5.push_back(id);
  out.t5.push_back(t5.eos());
  out.t5.resize(t5_size, t5.pad());
  return out;
}

}  // namespace calotype::text
