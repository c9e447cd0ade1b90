// CLIP's tokenizer: byte-level byte-pair encoding with "</w>" at the end of words, as transformers 5 CLIPTokenizer.
// Prompts become content ids; start, end, truncation and padding are the text encoder's business.
//
//   const auto clip = ClipTokenizer::load("models/tokenizers/clip");
//   clip.encode("a photo of a cat") == {320, 1125, 539, 320, 2368}
//
// Immutable after loading: any number of threads may encode at once. Time is n log n for a prompt of n bytes.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer_config.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_pieces.h"

namespace calotype::text {

class ClipTokenizer {
 public:
  /// A folder (tokenizer.json, or else vocab.json with merges.txt), or one of these files by content. Special tokens
  /// are those of tokenizer_config.json beside it, else <|startoftext|> and <|endoftext|>, which also pads.
  /// Errors: not_found; corrupt_file naming file and field; unsupported for settings other than CLIP's.
  static ClipTokenizer load(const std::filesystem::path& path);
  static ClipTokenizer from_tokenizer_json(const TokenizerFile& file, const TokenizerConfig& config = {});
  static ClipTokenizer from_vocab_and_merges(const TokenizerFile& vocab, const TokenizerFile& merges,
                                             const TokenizerConfig& config = {});

  /// Ids without bos and eos. Any valid UTF-8, of any length; bytes that are none are bad_input naming their offset.
  std::vector<int32_t> encode(std::string_view utf8) const;

  int32_t bos() const { return bos_; }
  int32_t eos() const { return eos_; }
  int32_t pad() const { return pad_; }
  /// Largest id + 1: the rows that an embedding needs.
  int32_t vocab_size() const { return vocab_size_; }

 private:
  struct Merge {
    uint32_t rank;
    int32_t merged;
  };
  using MergeText = std::pair<std::string, std::string>;
  struct Parts;

  ClipTokenizer(Parts parts, const TokenizerConfig& config);
  void set_merges(const std::vector<MergeText>& merges, const PieceTable& vocabulary, const std::string& where);
  void set_byte_symbols(const PieceTable& vocabulary, int32_t unk);
  const Merge* find_merge(int32_t left, int32_t right) const;
  std::vector<int32_t> encode_word(std::string_view word) const;

  std::array<int32_t, 256> byte_symbols_{}, last_byte_symbols_{};
  std::unordered_map<uint64_t, Merge> merges_;  // key: left id << 32 | right id
  AddedTokens added_;
  int32_t bos_ = 0, eos_ = 0, pad_ = 0, vocab_size_ = 0;
};

}  // namespace calotype::text
