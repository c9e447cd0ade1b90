// Any bytes as a prompt for the two tokenizers that come with the program.
#include "base/data_folder.h"
#include "base/utf8.h"
#include "fuzz.h"
#include "text/clip_bpe.h"
#include "text/t5_sentencepiece.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  static const auto folder = base::data_folder() / "models" / "tokenizers";
  static const auto clip = text::ClipTokenizer::load(folder / "clip");
  static const auto t5 = text::T5Tokenizer::load(folder / "t5");

  const bool valid = !base::first_broken_utf8(input);
  std::vector<int32_t> ids;
  require(accepted([&] { ids = clip.encode(input); }, "the prompt") == valid,
          "CLIP takes valid UTF-8 and nothing else");
  check_ids(ids, clip.vocab_size());
  require(accepted([&] { ids = t5.encode(input); }, "the prompt") == valid, "T5 takes valid UTF-8 and nothing else");
  check_ids(ids, t5.vocab_size());
}

}  // namespace calotype::fuzz
