#include "text/clip_bpe.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "base/error.h"
#include "base/utf8.h"
#include "text/tokenizer_unicode.h"

namespace calotype::text {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;

constexpr std::string_view kStart = "<|startoftext|>", kEnd = "<|endoftext|>", kEndOfWord = "</w>";

/// NFC, white space collapsed, lower case: transformers' normalizer for CLIP.
std::string normalize(std::string_view text) {
  const std::string composed = nfc(text);
  std::string out;
  out.reserve(composed.size());
  bool after_space = false;
  for (size_t i = 0; i < composed.size();) {
    const base::Utf8Char c = base::decode_utf8(composed, i);
    const bool space = is_space(c.code);
    if (!space)
      for (const char32_t code : lower(c.code)) base::append_utf8(out, code);
    else if (!after_space)
      out += ' ';
    after_space = space;
    i += c.length;
  }
  return out;
}

template <typename Predicate>
size_t run_length(std::string_view text, Predicate belongs) {
  size_t length = 0;
  while (length < text.size()) {
    const base::Utf8Char c = base::decode_utf8(text, length);
    if (!belongs(c.code)) break;
    length += c.length;
  }
  return length;
}

/// Bytes of the word that `text` starts with; 0 where white space is to be skipped. That is kPattern below, after which
/// ByteLevel's own pattern changes nothing but the special tokens, see split_words().
size_t word_length(std::string_view text) {
  for (const std::string_view contraction : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
    if (text.starts_with(contraction)) return contraction.size();
  const base::Utf8Char first = base::decode_utf8(text, 0);
  if (is_letter(first.code)) return run_length(text, is_letter);
  if (is_number(first.code)) return first.length;
  return run_length(text, [](char32_t c) { return !is_space(c) && !is_letter(c) && !is_number(c); });
}

std::vector<std::string_view> split_words(std::string_view text) {
  std::vector<std::string_view> words;
  const auto take = [&](size_t length) {
    if (length > 0) words.push_back(text.substr(0, length));
    text.remove_prefix(length);
  };
  while (!text.empty()) {
    const std::string_view special = text.starts_with(kStart) ? kStart : text.starts_with(kEnd) ? kEnd : "";
    if (!special.empty()) {
      // Reached by "<|ENDOFTEXT|>" only. The first pattern keeps it whole, ByteLevel's own cuts it into three.
      for (const size_t length : {size_t{2}, special.size() - 4, size_t{2}}) take(length);
    } else if (const size_t length = word_length(text); length > 0) {
      take(length);
    } else {
      text.remove_prefix(run_length(text, is_space));
    }
  }
  return words;
}

/// GPT-2's printable stand-in for each byte: itself where Latin-1 has a visible character, else U+0100 and on.
std::array<std::string, 256> byte_texts() {
  std::array<std::string, 256> texts;
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    base::append_utf8(texts[byte], visible ? byte : next++);
  }
  return texts;
}

// What transformers 4 and 5 write for CLIP. It ignores these when it loads a CLIPTokenizer and uses its own; a file
// that asks for something else was made for another tokenizer.
constexpr const char* kNormalizer = R"({"type":"Sequence","normalizers":[{"type":"NFC"},
  {"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "},{"type":"Lowercase"}]})";
constexpr const char* kPattern =
    R"(<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
constexpr const char* kOldPattern = R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";

void check_pre_tokenizer(const JsonValue& value) {
  const auto is_split = [](const json& step, const char* pattern) {
    return step ==
           json{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Removed"}, {"invert", true}};
  };
  const auto is_byte_level = [](json step) {
    if (!step.is_object()) return false;
    step.erase("trim_offsets");  // no matter for ids
    if (step.value("use_regex", json(true)) == true) step.erase("use_regex");
    return step == json{{"type", "ByteLevel"}, {"add_prefix_space", false}};
  };
  const json& found = value.object().json();
  const json steps = found.value("type", json()) == "Sequence" ? found.value("pretokenizers", json()) : json();
  const bool standard = steps.is_array() && steps.size() == 2 &&
                        (is_split(steps[0], kPattern) || is_split(steps[0], kOldPattern)) && is_byte_level(steps[1]);
  if (!standard) value.fail_unsupported("CLIP's Split and ByteLevel", "CLIP");
}

void check_settings(const JsonValue& root) {
  for (const std::string_view key : {"normalizer", "pre_tokenizer"})
    base::check(root.find(key).has_value(), ErrorKind::unsupported, "{} has no \"{}\": not a CLIP tokenizer",
                root.where(), key);
  const auto expect = [](bool same, const JsonValue& value, std::string_view expected) {
    if (!same) value.fail_unsupported(expected, "CLIP");
  };
  const JsonValue normalizer = root.at("normalizer"), model = root.at("model");
  expect(normalizer.json() == json::parse(kNormalizer), normalizer, "NFC, Replace \\s+, Lowercase");
  check_pre_tokenizer(root.at("pre_tokenizer"));
  if (const auto type = model.find("type")) expect(type->string() == "BPE", *type, "\"BPE\"");
  const JsonValue suffix = model.at("end_of_word_suffix");
  expect(suffix.string() == kEndOfWord, suffix, "\"</w>\"");
  if (const auto prefix = model.find("continuing_subword_prefix")) expect(prefix->string().empty(), *prefix, "\"\"");
  if (const auto dropout = model.find("dropout")) expect(dropout->number() == 0, *dropout, "null");
  for (const std::string_view key : {"fuse_unk", "byte_fallback", "ignore_merges"})
    if (const auto flag = model.find(key)) expect(!flag->boolean(), *flag, "false");
}

PieceTable read_vocabulary(const JsonValue& vocab) {
  std::vector<Piece> pieces;
  for (const auto& [text, id] : vocab.object().json().items()) {
    const bool fits = id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(kMostIds);
    base::check(fits, ErrorKind::corrupt_file, "{}[\"{}\"] is {}, expected a whole number from 0 to {}", vocab.where(),
                base::printable(text), base::printable(id.is_structured() ? id.type_name() : id.dump(), 60),
                kMostIds - 1);
    pieces.push_back({text, id.get<int32_t>()});
  }
  return {std::move(pieces), vocab.where()};
}

/// "left right" as the two halves of a merge.
std::pair<std::string, std::string> split_merge(std::string_view text, const std::string& where) {
  const size_t space = text.find(' ');
  base::check(space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos,
              ErrorKind::corrupt_file, "{} is \"{}\", expected two symbols with a space between", where,
              base::printable(text));
  return {std::string(text.substr(0, space)), std::string(text.substr(space + 1))};
}

}  // namespace

struct ClipTokenizer::Parts {
  std::string vocab_where, merges_where;  // "clip/vocab.json", "clip/tokenizer.json: model.merges"
  PieceTable vocabulary;
  std::vector<MergeText> merges = {};  // best first
  std::vector<AddedToken> added = {};
  std::string unk{kEnd};
};

ClipTokenizer ClipTokenizer::load(const fs::path& path) {
  const bool whole_folder = is_folder(path);
  const fs::path folder = whole_folder ? path : path.parent_path();
  const TokenizerConfig config = read_tokenizer_config(folder);
  if (whole_folder && file_exists(folder / "tokenizer.json"))
    return from_tokenizer_json(read_tokenizer_file(folder / "tokenizer.json"), config);
  const TokenizerFile file = read_tokenizer_file(whole_folder ? folder / "vocab.json" : path);
  if (!whole_folder && JsonDocument(file).root().find("model")) return from_tokenizer_json(file, config);
  return from_vocab_and_merges(file, read_tokenizer_file(folder / "merges.txt"), config);
}

ClipTokenizer ClipTokenizer::from_tokenizer_json(const TokenizerFile& file, const TokenizerConfig& config) {
  const JsonDocument document(file);
  const JsonValue root = document.root();
  check_settings(root);
  const JsonValue model = root.at("model"), vocab = model.at("vocab"), merges = model.at("merges");

  Parts parts{.vocab_where = vocab.where(), .merges_where = merges.where(), .vocabulary = read_vocabulary(vocab)};
  parts.merges.reserve(merges.array().size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const JsonValue merge = merges.at(i);
    if (merge.json().is_array() && merge.size() == 2)
      parts.merges.emplace_back(merge.at(0).string(), merge.at(1).string());
    else
      parts.merges.push_back(split_merge(merge.string(), merge.where()));
  }
  parts.added = read_added_tokens(root);
  if (const auto unk = model.find("unk_token")) parts.unk = unk->string();
  return ClipTokenizer(std::move(parts), config);
}

ClipTokenizer ClipTokenizer::from_vocab_and_merges(const TokenizerFile& vocab, const TokenizerFile& merges,
                                                   const TokenizerConfig& config) {
  const JsonDocument document(vocab);
  Parts parts{.vocab_where = vocab.name, .merges_where = merges.name, .vocabulary = read_vocabulary(document.root())};
  std::string_view rest = merges.bytes;
  for (size_t line = 1; !rest.empty(); ++line) {
    std::string_view text = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), text.size() + 1));
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (!text.starts_with("#version"))
      parts.merges.push_back(split_merge(text, fmt::format("{}: line {}", merges.name, line)));
  }
  parts.unk = config.unk.value_or(std::string(kEnd));
  parts.added = config.added_tokens;
  return ClipTokenizer(std::move(parts), config);
}

ClipTokenizer::ClipTokenizer(Parts parts, const TokenizerConfig& config) {
  const std::string bos = config.bos.value_or(std::string(kStart)), eos = config.eos.value_or(std::string(kEnd));
  const std::string pad = config.pad.value_or(eos);
  const auto added = with_special_tokens(std::move(parts.added), parts.vocabulary, {bos, eos, pad, parts.unk});
  vocab_size_ = count_ids(parts.vocabulary, added, parts.vocab_where);
  const auto id_of = [&](std::string_view text, std::string_view role) {
    return special_id(parts.vocabulary, added, text, role, parts.vocab_where);
  };
  bos_ = id_of(bos, "start");
  eos_ = id_of(eos, "end");
  pad_ = id_of(pad, "padding");
  set_byte_symbols(parts.vocabulary, id_of(parts.unk, "unknown"));
  set_merges(parts.merges, parts.vocabulary, parts.merges_where);
  added_ = AddedTokens(added, normalize, parts.vocab_where);
}

void ClipTokenizer::set_byte_symbols(const PieceTable& vocabulary, int32_t unk) {
  const auto texts = byte_texts();
  for (size_t byte = 0; byte < texts.size(); ++byte) {
    byte_symbols_[byte] = vocabulary.find(texts[byte]).value_or(unk);
    last_byte_symbols_[byte] = vocabulary.find(texts[byte] + std::string(kEndOfWord)).value_or(unk);
  }
}

void ClipTokenizer::set_merges(const std::vector<MergeText>& merges, const PieceTable& vocabulary,
                               const std::string& where) {
  base::check(merges.size() < static_cast<size_t>(kMostIds), ErrorKind::corrupt_file,
              "{}: {} merges, at most {} expected", where, merges.size(), kMostIds);
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string &left = merges[rank].first, &right = merges[rank].second;
    const auto id_of = [&](const std::string& text) {
      const auto id = vocabulary.find(text);
      base::check(id.has_value(), ErrorKind::corrupt_file,
                  "{}: merge {} (\"{}\" with \"{}\") needs \"{}\", which the vocabulary lacks", where, rank,
                  base::printable(left), base::printable(right), base::printable(text));
      return *id;
    };
    const uint64_t pair = static_cast<uint64_t>(id_of(left)) << 32 | static_cast<uint64_t>(id_of(right));
    merges_.insert_or_assign(pair, Merge{.rank = static_cast<uint32_t>(rank), .merged = id_of(left + right)});
  }
}

const ClipTokenizer::Merge* ClipTokenizer::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right));
  return found == merges_.end() ? nullptr : &found->second;
}

// Best merge first, leftmost of equals, as in tokenizers' Word::merge_all: a queue of candidates over a linked list,
// because looking through the word for each merge would be quadratic.
std::vector<int32_t> ClipTokenizer::encode_word(std::string_view word) const {
  constexpr size_t kNone = SIZE_MAX;
  constexpr int32_t kGone = -1;
  struct Symbol {
    int32_t id;
    size_t previous, next;
  };
  std::vector<Symbol> symbols(word.size());
  for (size_t i = 0; i < word.size(); ++i) {
    const bool last = i + 1 == word.size();
    const auto& ids = last ? last_byte_symbols_ : byte_symbols_;
    symbols[i] = {ids[static_cast<unsigned char>(word[i])], i == 0 ? kNone : i - 1, last ? kNone : i + 1};
  }

  struct Candidate {
    uint32_t rank;
    size_t left;
    int32_t merged;
    auto operator<=>(const Candidate&) const = default;
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](size_t left) {
    if (left == kNone || symbols[left].next == kNone) return;
    if (const Merge* merge = find_merge(symbols[left].id, symbols[symbols[left].next].id))
      queue.push({merge->rank, left, merge->merged});
  };
  for (size_t i = 0; i < symbols.size(); ++i) offer(i);

  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    if (left.id == kGone || left.next == kNone) continue;
    Symbol& right = symbols[left.next];
    const Merge* merge = find_merge(left.id, right.id);
    if (!merge || merge->merged != best.merged) continue;  // a neighbour has changed since
    left.id = best.merged;
    right.id = kGone;
    left.next = right.next;
    if (left.next != kNone) symbols[left.next].previous = best.left;
    offer(left.previous);
    offer(best.left);
  }

  std::vector<int32_t> ids;
  for (size_t i = 0; i != kNone && i < symbols.size(); i = symbols[i].next) ids.push_back(symbols[i].id);
  return ids;
}

std::vector<int32_t> ClipTokenizer::encode(std::string_view utf8) const {
  const auto broken = base::first_broken_utf8(utf8);
  base::check(!broken, ErrorKind::bad_input, "the prompt is not valid UTF-8 at byte {}", broken.value_or(0));
  std::vector<int32_t> ids;
  for (const Segment& segment : added_.split(utf8, normalize)) {
    if (segment.token) ids.push_back(*segment.token);
    for (const std::string_view word : split_words(segment.text))
      std::ranges::copy(encode_word(word), std::back_inserter(ids));
  }
  return ids;
}

}  // namespace calotype::text
