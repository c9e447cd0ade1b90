#include "pipeline/prompt_encoder.h"

#include <ATen/ATen.h>

namespace calotype::pipeline {

using weights::Component;

text::PromptTokens PromptEncoder::tokenize(const std::string& prompt, int t5_tokens) {
  if (!clip_tokenizer_) clip_tokenizer_ = text::ClipTokenizer::load(bundle_.clip_tokenizer);
  if (!t5_tokenizer_) t5_tokenizer_ = text::T5Tokenizer::load(bundle_.t5_tokenizer);
  const int64_t clip_tokens = text::clip_config(bundle_.part(Component::clip)).positions;
  return text::tokenize(prompt, *clip_tokenizer_, *t5_tokenizer_, {.clip_tokens = clip_tokens, .t5_tokens = t5_tokens});
}

void PromptEncoder::load(const weights::LoadOptions& options) {
  if (!clip_) clip_ = std::make_unique<text::ClipEncoder>(bundle_.part(Component::clip), options);
  if (!t5_) t5_ = std::make_unique<text::T5Encoder>(bundle_.part(Component::t5), options);
}

flux::Conditioning PromptEncoder::encode(const std::vector<std::string>& prompts, int t5_tokens,
                                         const std::function<void(int, int)>& on_layer) {
  std::vector<at::Tensor> clip_ids, t5_ids;
  for (const std::string& prompt : prompts) {
    const text::PromptTokens tokens = tokenize(prompt, t5_tokens);
    clip_ids.push_back(at::tensor(tokens.clip, at::kLong));
    t5_ids.push_back(at::tensor(tokens.t5, at::kLong));
  }
  const int layers = t5_->config().layers;
  flux::Conditioning cond;
  cond.pooled_BP = clip_->encode(at::stack(clip_ids)).pooled_BD;
  cond.text_BTE = t5_->encode(at::stack(t5_ids), [&](int layer) {
    if (on_layer) on_layer(layer, layers);
  });
  return cond;
}

void PromptEncoder::release() {
  clip_.reset();
  t5_.reset();
  bundle_.part(Component::clip).release_pages();
  bundle_.part(Component::t5).release_pages();
}

}  // namespace calotype::pipeline
