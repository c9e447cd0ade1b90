// Prompts → what the transformer is told: tokenizers and both text encoders of one model.
//
//   PromptEncoder encoder(bundle);
//   encoder.load({.dtype = at::kBFloat16});
//   flux::Conditioning cond = encoder.encode({"a cat", "a dog"}, 512);
//   encoder.release();                                   // tokenizers stay, weights leave memory
//
// One thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "flux/flux_transformer.h"
#include "pipeline/model_bundle.h"
#include "text/clip_encoder.h"
#include "text/prompt.h"
#include "text/t5_encoder.h"

namespace calotype::pipeline {

class PromptEncoder {
 public:
  explicit PromptEncoder(ModelBundle bundle) : bundle_(std::move(bundle)) {}

  /// Needs no weights. `t5_tokens`: what the transformer is given, padding included.
  text::PromptTokens tokenize(const std::string& prompt, int t5_tokens);
  /// Loads both encoders; nothing to do when they are.
  void load(const weights::LoadOptions& options);
  /// One row per prompt; guidance is left for the caller. load() first. `on_layer` is called after each of T5's layers.
  flux::Conditioning encode(const std::vector<std::string>& prompts, int t5_tokens,
                            const std::function<void(int layer, int layers)>& on_layer = {});
  void release();

 private:
  ModelBundle bundle_;
  std::optional<text::ClipTokenizer> clip_tokenizer_;
  std::optional<text::T5Tokenizer> t5_tokenizer_;
  std::unique_ptr<text::ClipEncoder> clip_;
  std::unique_ptr<text::T5Encoder> t5_;
};

}  // namespace calotype::pipeline
