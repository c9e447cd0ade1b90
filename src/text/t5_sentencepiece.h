// T5's tokenizer: SentencePiece's Unigram model as transformers 5 T5Tokenizer runs it, which splits at white space
// first and searches each word for the pieces with the largest sum of scores.
//
//   const auto t5 = T5Tokenizer::load("models/tokenizers/t5");
//   t5.encode("a photo of a cat") == {3, 9, 1202, 13, 3, 9, 1712}
//
// Immutable after loading: any number of threads may encode at once. Time is linear in the prompt.
//
// The SentencePiece library gives other ids for some text: it takes the longest replacement where Hugging Face takes
// the shortest and drops the rest of a grapheme cluster, it adds scores in single precision over the whole sentence,
// and it never makes a control piece out of normalised text ("＜/s＞"). Equality with what people's checkpoints were
// used with goes first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "text/tokenizer_charsmap.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_pieces.h"

namespace calotype::text {

class T5Tokenizer {
 public:
  /// A folder (tokenizer.json, or else spiece.model), or one of these files by content. Special tokens are those of
  /// tokenizer_config.json beside it, else </s> and <pad>.
  /// Errors: not_found; corrupt_file naming file and field; unsupported for settings other than T5's.
  static T5Tokenizer load(const std::filesystem::path& path);
  static T5Tokenizer from_tokenizer_json(const TokenizerFile& file, const TokenizerConfig& config = {});
  /// The pieces are followed by <extra_id_99> … <extra_id_0>, or as many as `config` says, unless it has such pieces.
  static T5Tokenizer from_spiece_model(const TokenizerFile& file, const TokenizerConfig& config = {});

  /// Ids without </s>. Any valid UTF-8, of any length; bytes that are none are bad_input naming their offset.
  std::vector<int32_t> encode(std::string_view utf8) const;

  int32_t eos() const { return eos_; }
  int32_t pad() const { return pad_; }
  int32_t unk() const { return unk_; }
  /// Largest id + 1: the rows that an embedding needs.
  int32_t vocab_size() const { return vocab_size_; }

 private:
  struct Parts;

  T5Tokenizer(Parts parts, const TokenizerConfig& config);
  std::string normalize(std::string_view text) const;
  std::vector<int32_t> encode_word(std::string_view word) const;

  std::optional<Charsmap> charsmap_;
  PieceTable pieces_;
  std::vector<double> scores_;  // by id
  double unk_score_ = 0;
  AddedTokens added_;
  int32_t eos_ = 0, pad_ = 0, unk_ = 0, vocab_size_ = 0;
};

}  // namespace calotype::text
