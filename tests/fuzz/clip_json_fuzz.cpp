// CLIP's tokenizer.json, and prompts through whatever tokenizer it makes.
#include "fuzz.h"
#include "text/clip_bpe.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  std::optional<text::ClipTokenizer> clip;
  const text::TokenizerFile file{.name = std::string(kSource), .bytes = std::string(input)};
  if (!accepted([&] { clip = text::ClipTokenizer::from_tokenizer_json(file); })) return;
  check_ids({clip->bos(), clip->eos(), clip->pad()}, clip->vocab_size());
  for (const std::string& prompt : prompts_for(input)) check_ids(clip->encode(prompt), clip->vocab_size());
}

}  // namespace calotype::fuzz
