#include "text/clip_bpe.h"

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

/// Bytes of the word that `text` starts with; 0 where white space is to be skipped. The pattern of kSettings below.
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

[[noreturn]] void fail_setting(const JsonValue& value, std::string_view expected) {
  base::fail(ErrorKind::unsupported, "{} is {}, expected {}: not a CLIP tokenizer", value.where(),
             base::printable(value.json().dump(), 200), expected);
}

void check_pre_tokenizer(const JsonValue& value) {
  const auto is_split = [](const json& step) {
    return step ==
               json{{"type", "Split"}, {"pattern", {{"Regex", kPattern}}}, {"behavior", "Removed"}, {"invert", true}} ||
           step ==
               json{
                   {"type", "Split"}, {"pattern", {{"Regex", kOldPattern}}}, {"behavior", "Removed"}, {"invert", true}};
  };
  const auto is_byte_level = [](json step) {
    step.erase("trim_offsets");  // no matter for ids
    if (step.value("use_regex", json(true)) == true) step.erase("use_regex");
    return step == json{{"type", "ByteLevel"}, {"add_prefix_space", false}};
  };
  const json& found = value.json();
  const json steps =
      found.is_object() && found.value("type", json()) == "Sequence" ? found.value("pretokenizers", json()) : json();
  const bool standard =
      steps.is_array() && steps.size() == 2 && is_split(steps[0]) && steps[1].is_object() && is_byte_level(steps[1]);
  if (!standard) fail_setting(value, "CLIP's Split and ByteLevel");
}

void check_settings(const JsonValue& root) {
  for (const std::string_view key : {"normalizer", "pre_tokenizer"})
    base::check(root.find(key).has_value(), ErrorKind::unsupported, "{} has no \"{}\": not a CLIP tokenizer",
                root.where(), key);
  const JsonValue normalizer = root.at("normalizer");
  if (normalizer.json() != json::parse(kNormalizer)) fail_setting(normalizer, "NFC, Replace \\s+, Lowercase");
  check_pre_tokenizer(root.at("pre_tokenizer"));

  const JsonValue model = root.at("model");
  if (const auto type = model.find("type"); type && type->string() != "BPE") fail_setting(*type, "\"BPE\"");
  if (const JsonValue suffix = model.at("end_of_word_suffix"); suffix.string() != kEndOfWord)
    fail_setting(suffix, "\"</w>\"");
  if (const auto prefix = model.find("continuing_subword_prefix"); prefix && !prefix->string().empty())
    fail_setting(*prefix, "\"\"");
  if (const auto dropout = model.find("dropout"); dropout && dropout->number() != 0) fail_setting(*dropout, "null");
  for (const std::string_view key : {"fuse_unk", "byte_fallback", "ignore_merges"})
    if (const auto flag = model.find(key); flag && flag->boolean()) fail_setting(*flag, "false");
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

/// transformers makes every special token an added token: with SD 2's padding "!" no "!" of a prompt reaches the
/// merges.
std::vector<AddedToken> with_special_tokens(const TokenizerConfig& config, const PieceTable& vocabulary) {
  std::vector<AddedToken> added = config.added_tokens;
  const std::string end(kEnd);
  for (const std::string& text : {config.bos.value_or(std::string(kStart)), config.eos.value_or(end),
                                  config.pad.value_or(end), config.unk.value_or(end)}) {
    const auto id = vocabulary.find(text);
    const bool known = std::ranges::find(added, text, &AddedToken::text) != added.end();
    // The published configuration normalises this one only: "<|STARTOFTEXT|>" is special too, "<|ENDOFTEXT|>" is not.
    if (id && !known) added.push_back({.text = text, .id = *id, .normalized = text == kStart});
  }
  return added;
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
  const bool is_folder = fs::is_directory(path);
  const fs::path folder = is_folder ? path : path.parent_path();
  const TokenizerConfig config = read_tokenizer_config(folder);
  if (is_folder && fs::exists(folder / "tokenizer.json"))
    return from_tokenizer_json(read_tokenizer_file(folder / "tokenizer.json"), config);
  const TokenizerFile file = read_tokenizer_file(is_folder ? folder / "vocab.json" : path);
  if (!is_folder && JsonDocument(file).root().find("model")) return from_tokenizer_json(file, config);
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
  return ClipTokenizer(parts, config);
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
  parts.added = with_special_tokens(config, parts.vocabulary);
  return ClipTokenizer(parts, config);
}

ClipTokenizer::ClipTokenizer(const Parts& parts, const TokenizerConfig& config) {
  vocab_size_ = count_ids(parts.vocabulary, parts.added, parts.vocab_where);
  const auto id_of = [&](std::string_view text, std::string_view role) {
    auto id = parts.vocabulary.find(text);
    for (const AddedToken& token : parts.added)
      if (token.text == text) id = token.id;
    base::check(id.has_value(), ErrorKind::corrupt_file, "{} has no \"{}\", the {} token", parts.vocab_where,
                base::printable(text), role);
    return *id;
  };
  bos_ = id_of(config.bos.value_or(std::string(kStart)), "start");
  eos_ = id_of(config.eos.value_or(std::string(kEnd)), "end");
  pad_ = config.pad ? id_of(*config.pad, "padding") : eos_;
  set_byte_symbols(parts.vocabulary, id_of(parts.unk, "unknown"));
  set_merges(parts.merges, parts.vocabulary, parts.merges_where);
  added_ = AddedTokens(parts.added, normalize, parts.vocab_where);
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
    const auto& [left, right] = merges[rank];
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
