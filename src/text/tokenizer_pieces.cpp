#include "text/tokenizer_pieces.h"

#include "base/error.h"

namespace calotype::text {
namespace {

using base::ErrorKind;

/// Cuts `text` at the tokens of `table`; what lies between them goes through `rest`.
template <typename Rest>
std::vector<Segment> cut(const PieceTable& table, std::string_view text, Rest rest) {
  std::vector<Segment> segments;
  size_t done = 0;
  const auto take_until = [&](size_t end) {
    if (end > done) std::ranges::move(rest(text.substr(done, end - done)), std::back_inserter(segments));
  };
  for (size_t i = 0; i < text.size();) {
    size_t longest = 0;
    int32_t token = 0;
    table.for_each_prefix(text.substr(i), [&](size_t length, int32_t id) { longest = length, token = id; });
    if (longest == 0) {
      ++i;
      continue;
    }
    take_until(i);
    segments.push_back({.text = "", .token = token});
    done = i += longest;
  }
  take_until(text.size());
  return segments;
}

}  // namespace

PieceTable::PieceTable(std::vector<Piece> pieces, std::string_view where) : pieces_(std::move(pieces)) {
  std::ranges::sort(pieces_, {}, &Piece::text);
  const auto twice = std::ranges::adjacent_find(pieces_, {}, &Piece::text);
  base::check(twice == pieces_.end(), ErrorKind::corrupt_file, "{} has \"{}\" twice", where,
              twice == pieces_.end() ? "" : base::printable(twice->text));
}

std::optional<int32_t> PieceTable::find(std::string_view text) const {
  const auto piece = std::ranges::lower_bound(pieces_, text, {}, &Piece::text);
  if (piece == pieces_.end() || piece->text != text) return std::nullopt;
  return piece->id;
}

AddedToken read_added_token(const JsonValue& value, int64_t id) {
  for (const std::string_view option : {"single_word", "lstrip", "rstrip"}) {
    const auto set = value.find(option);
    base::check(!set || !set->boolean(), ErrorKind::unsupported, "{}.{} is true, which is not supported", value.where(),
                option);
  }
  const JsonValue text = value.at("content");
  base::check(!text.string().empty(), ErrorKind::corrupt_file, "{} is empty", text.where());
  const auto normalized = value.find("normalized");
  return {.text = text.string(), .id = static_cast<int32_t>(id), .normalized = normalized && normalized->boolean()};
}

std::vector<AddedToken> read_added_tokens(const JsonValue& root) {
  std::vector<AddedToken> tokens;
  const auto list = root.find("added_tokens");
  for (size_t i = 0; list && i < list->array().size(); ++i) {
    const JsonValue entry = list->at(i);
    tokens.push_back(read_added_token(entry, entry.at("id").integer(0, kMostIds)));
  }
  return tokens;
}

std::vector<AddedToken> with_special_tokens(std::vector<AddedToken> added, const PieceTable& vocabulary,
                                            const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    const auto id = vocabulary.find(text);
    const bool known = std::ranges::find(added, text, &AddedToken::text) != added.end();
    // CLIP's published configuration normalises this one only: "<|STARTOFTEXT|>" is special, "<|ENDOFTEXT|>" is not.
    const bool normalized = text == "<|startoftext|>";
    if (id && !known) added.push_back({.text = text, .id = *id, .normalized = normalized});
  }
  return added;
}

int32_t special_id(const PieceTable& vocabulary, const std::vector<AddedToken>& added, std::string_view text,
                   std::string_view role, std::string_view where) {
  if (const auto token = std::ranges::find(added, text, &AddedToken::text); token != added.end()) return token->id;
  const auto id = vocabulary.find(text);
  base::check(id.has_value(), ErrorKind::corrupt_file, "{} has no \"{}\", the {} token", where, base::printable(text),
              role);
  return *id;
}

int32_t count_ids(const PieceTable& vocabulary, const std::vector<AddedToken>& added, std::string_view where) {
  std::vector<std::pair<int32_t, std::string_view>> all;
  for (const Piece& piece : vocabulary.sorted()) all.emplace_back(piece.id, piece.text);
  for (const AddedToken& token : added) {
    const auto known = vocabulary.find(token.text);
    base::check(!known || *known == token.id, ErrorKind::corrupt_file,
                "{}: added token \"{}\" has id {}, in the vocabulary it has {}", where, base::printable(token.text),
                token.id, known.value_or(0));
    if (!known) all.emplace_back(token.id, token.text);
  }
  base::check(!all.empty(), ErrorKind::corrupt_file, "{}: the vocabulary is empty", where);
  std::ranges::sort(all);
  for (size_t i = 1; i < all.size(); ++i)
    base::check(all[i].first != all[i - 1].first, ErrorKind::corrupt_file, "{}: \"{}\" and \"{}\" both have id {}",
                where, base::printable(all[i - 1].second), base::printable(all[i].second), all[i].first);
  return all.back().first + 1;
}

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens, const Normalize& normalize, std::string_view where) {
  std::vector<Piece> raw, normalized;
  for (const AddedToken& token : tokens) {
    if (token.normalized)
      normalized.push_back({normalize(token.text), token.id});
    else
      raw.push_back({token.text, token.id});
  }
  raw_ = PieceTable(std::move(raw), where);
  normalized_ = PieceTable(std::move(normalized), where);
}

std::vector<Segment> AddedTokens::split(std::string_view text, const Normalize& normalize) const {
  return cut(raw_, text, [&](std::string_view between) {
    return cut(normalized_, normalize(between), [](std::string_view plain) {
      return std::vector{Segment{std::string(plain), std::nullopt}};
    });
  });
}

}  // namespace calotype::text
