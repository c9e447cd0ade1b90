// SentencePiece's spiece.model with its character map, and prompts through whatever tokenizer it makes.
#include "fuzz.h"
#include "text/t5_sentencepiece.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  std::optional<text::T5Tokenizer> t5;
  const text::TokenizerFile file{.name = std::string(kSource), .bytes = std::string(input)};
  if (!accepted([&] { t5 = text::T5Tokenizer::from_spiece_model(file); })) return;
  check_ids({t5->eos(), t5->pad(), t5->unk()}, t5->vocab_size());
  for (const std::string& prompt : prompts_for(input)) check_ids(t5->encode(prompt), t5->vocab_size());
}

}  // namespace calotype::fuzz
