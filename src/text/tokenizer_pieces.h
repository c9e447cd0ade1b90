// The strings of a vocabulary, found exactly or as prefixes of a text; and added tokens, which are cut out of a text
// before the tokenizer proper sees it, as Hugging Face's AddedVocabulary does.
//
//   pieces.for_each_prefix("abc", [](size_t length, int32_t id) { … });   // "a", "ab", "abc", as far as they exist
//
// Thread-safe once made.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_json.h"

namespace calotype::text {

struct Piece {
  std::string text;
  int32_t id;
};

/// A sorted array rather than a trie: a hostile vocabulary of 64 MB then needs no more memory than its strings.
class PieceTable {
 public:
  PieceTable() = default;
  /// Two equal texts are an error that starts with `where`, as in "t5/tokenizer.json: model.vocab".
  PieceTable(std::vector<Piece> pieces, std::string_view where);

  std::optional<int32_t> find(std::string_view text) const;
  /// visit(length in bytes, id) for every piece that `text` starts with, shortest first; never the empty one.
  template <typename Visit>
  void for_each_prefix(std::string_view text, Visit visit) const;

  const std::vector<Piece>& sorted() const { return pieces_; }

 private:
  std::vector<Piece> pieces_;
};

struct AddedToken {
  std::string text;
  int32_t id;
  bool normalized;  ///< looked for after normalisation, in its own normalised form
};

/// Reads an element of tokenizer.json's "added_tokens" or a value of tokenizer_config.json's "added_tokens_decoder".
/// Options that no FLUX tokenizer uses (single_word, lstrip, rstrip) are `unsupported`.
AddedToken read_added_token(const JsonValue& value, int64_t id);
std::vector<AddedToken> read_added_tokens(const JsonValue& root);

/// `added` with those of `texts` that the vocabulary has and `added` lacks: transformers makes every special token an
/// added token, so that with SD 2's padding "!" no "!" of a prompt reaches the merges.
std::vector<AddedToken> with_special_tokens(std::vector<AddedToken> added, const PieceTable& vocabulary,
                                            const std::vector<std::string>& texts);

/// The id of a special token; `role` ("end") and `where` are for the error.
int32_t special_id(const PieceTable& vocabulary, const std::vector<AddedToken>& added, std::string_view text,
                   std::string_view role, std::string_view where);

/// Vocabulary and added tokens together must give each id one text and each text one id. Returns the number of rows
/// that an embedding needs: the largest id + 1.
int32_t count_ids(const PieceTable& vocabulary, const std::vector<AddedToken>& added, std::string_view where);

/// A stretch of normalised text, or an added token (then `text` is empty).
struct Segment {
  std::string text;
  std::optional<int32_t> token;
};

class AddedTokens {
 public:
  using Normalize = std::function<std::string(std::string_view)>;

  AddedTokens() = default;
  AddedTokens(const std::vector<AddedToken>& tokens, const Normalize& normalize, std::string_view where);

  /// Raw tokens are taken first, what lies between them is normalised, then the normalised ones are taken; of several
  /// that start at one place the longest.
  std::vector<Segment> split(std::string_view text, const Normalize& normalize) const;

 private:
  PieceTable raw_, normalized_;
};

template <typename Visit>
void PieceTable::for_each_prefix(std::string_view text, Visit visit) const {
  auto begin = pieces_.begin(), end = pieces_.end();
  for (size_t length = 1; length <= text.size() && begin != end; ++length) {
    // All of [begin, end) share the first length − 1 bytes; the one that ends there sorts first.
    const auto byte = [length](const Piece& piece) {
      return piece.text.size() < length ? -1 : static_cast<unsigned char>(piece.text[length - 1]);
    };
    const int wanted = static_cast<unsigned char>(text[length - 1]);
    begin = std::ranges::lower_bound(begin, end, wanted, {}, byte);
    end = std::ranges::upper_bound(begin, end, wanted, {}, byte);
    if (begin != end && begin->text.size() == length) visit(length, begin->id);
  }
}

}  // namespace calotype::text
