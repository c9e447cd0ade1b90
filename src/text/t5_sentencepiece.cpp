#include "text/t5_sentencepiece.h"

#include "base/error.h"
#include "base/utf8.h"
#include "text/tokenizer_spiece.h"
#include "text/tokenizer_unicode.h"

namespace calotype::text {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;

constexpr std::string_view kWordMark = "▁";
// Below the worst piece by as much as kUnkPenalty of SentencePiece's unigram_model.cc.
constexpr double kUnknownPenalty = 10;
constexpr int64_t kExtraIds = 100;

void expect(bool same, const JsonValue& value, std::string_view expected) {
  if (!same) value.fail_unsupported(expected, "T5");
}

/// The steps of a "Sequence", or the one step that stands for itself; none where `key` is missing or null.
std::vector<JsonValue> read_steps(const JsonValue& root, std::string_view key, std::string_view list) {
  const auto value = root.find(key);
  if (!value) return {};
  if (value->at("type").string() != "Sequence") return {*value};
  std::vector<JsonValue> steps;
  const JsonValue sequence = value->at(list);
  for (size_t i = 0; i < sequence.array().size(); ++i) steps.push_back(sequence.at(i));
  return steps;
}

// transformers 5 keeps the character map of a file's normalizer and runs WhitespaceSplit and Metaspace after it, so
// what else T5 files of older versions hold (Strip, Replace of runs of spaces) has no effect; anything beyond is
// refused.
std::optional<Charsmap> read_normalizer(const JsonValue& root) {
  std::optional<Charsmap> charsmap;
  for (const JsonValue& step : read_steps(root, "normalizer", "normalizers")) {
    const std::string& type = step.at("type").string();
    if (type == "Precompiled" && !charsmap) {
      const JsonValue blob = step.at("precompiled_charsmap");
      charsmap.emplace(decode_base64(blob.string(), blob.where()), blob.where());
    } else if (type == "Replace") {
      expect(step.at("pattern").json() == json{{"Regex", " {2,}"}}, step, "the pattern \" {2,}\"");
    } else {
      expect(type == "Strip", step, "Precompiled, Strip, Replace");
    }
  }
  return charsmap;
}

void check_pre_tokenizer(const JsonValue& root) {
  const auto steps = read_steps(root, "pre_tokenizer", "pretokenizers");
  base::check(!steps.empty(), ErrorKind::unsupported, "{} has no pre_tokenizer, expected Metaspace: not a T5 tokenizer",
              root.where());
  for (const JsonValue& step : steps) {
    const std::string& type = step.at("type").string();
    if (type == "WhitespaceSplit") continue;
    expect(type == "Metaspace" && step.at("replacement").string() == kWordMark, step, "Metaspace with \"▁\"");
    if (const auto scheme = step.find("prepend_scheme"))
      expect(scheme->string() == "first" || scheme->string() == "always", *scheme, "\"first\" or \"always\"");
    for (const std::string_view key : {"add_prefix_space", "split"})
      if (const auto flag = step.find(key)) expect(flag->boolean(), *flag, "true");
  }
}

std::string extra_id(int64_t number) { return fmt::format("<extra_id_{}>", number); }

/// At spaces, then before each "▁", of which a word gets one in front: WhitespaceSplit and Metaspace(always, split).
std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const base::Utf8Char c = base::decode_utf8(text, i);
    const std::string_view character = text.substr(i, c.length);
    i += c.length;
    const bool space = is_space(c.code);
    if (!space && (!inside || character == kWordMark)) words.emplace_back(kWordMark);
    if (!space && character != kWordMark) words.back() += character;
    inside = !space;
  }
  return words;
}

}  // namespace

struct T5Tokenizer::Parts {
  std::string where;  // "t5/tokenizer.json: model.vocab"
  std::vector<Piece> pieces = {};
  std::vector<double> scores = {};
  std::optional<Charsmap> charsmap = {};
  std::vector<AddedToken> added = {};
  int32_t unk = 0;
  std::string unk_text = {};

  void append(std::string text, double score) {
    pieces.push_back({std::move(text), static_cast<int32_t>(pieces.size())});
    scores.push_back(score);
  }
};

T5Tokenizer T5Tokenizer::load(const fs::path& path) {
  const bool whole_folder = is_folder(path);
  const fs::path folder = whole_folder ? path : path.parent_path();
  const TokenizerConfig config = read_tokenizer_config(folder);
  const char* const preferred = file_exists(folder / "tokenizer.json") ? "tokenizer.json" : "spiece.model";
  const TokenizerFile file = read_tokenizer_file(whole_folder ? folder / preferred : path);
  // A spiece.model starts with the tag of its first piece, a line feed.
  return file.bytes.starts_with('{') ? from_tokenizer_json(file, config) : from_spiece_model(file, config);
}

T5Tokenizer T5Tokenizer::from_tokenizer_json(const TokenizerFile& file, const TokenizerConfig& config) {
  const JsonDocument document(file);
  const JsonValue root = document.root();
  check_pre_tokenizer(root);
  const JsonValue model = root.at("model");
  if (const auto type = model.find("type")) expect(type->string() == "Unigram", *type, "\"Unigram\"");
  if (const auto flag = model.find("byte_fallback")) expect(!flag->boolean(), *flag, "false");

  const JsonValue vocab = model.at("vocab");
  base::check(vocab.array().size() > 0 && vocab.size() <= static_cast<size_t>(kMostIds), ErrorKind::corrupt_file,
              "{} has {} pieces, expected 1 to {}", vocab.where(), vocab.size(), kMostIds);
  Parts parts{.where = vocab.where(), .charsmap = read_normalizer(root), .added = read_added_tokens(root)};
  for (size_t id = 0; id < vocab.size(); ++id) {
    const JsonValue entry = vocab.at(id);
    parts.append(entry.at(size_t{0}).string(), entry.at(1).number());
  }
  parts.unk = static_cast<int32_t>(model.at("unk_id").integer(0, static_cast<int64_t>(vocab.size())));
  parts.unk_text = parts.pieces[static_cast<size_t>(parts.unk)].text;
  return {std::move(parts), config};
}

T5Tokenizer T5Tokenizer::from_spiece_model(const TokenizerFile& file, const TokenizerConfig& config) {
  SpieceModel model = read_spiece_model(file);
  Parts parts{.where = file.name, .unk = model.unk, .unk_text = model.pieces[static_cast<size_t>(model.unk)].text};
  if (!model.charsmap.empty())
    parts.charsmap.emplace(model.charsmap, file.name + ": normalizer_spec.precompiled_charsmap");
  const bool has_extra_ids =
      std::ranges::find(model.pieces, extra_id(0), &SpieceModel::Entry::text) != model.pieces.end();
  for (int64_t number = has_extra_ids ? 0 : config.extra_ids.value_or(kExtraIds); number-- > 0;)
    model.pieces.push_back({.text = extra_id(number)});

  for (const auto& [text, score, type] : model.pieces) {
    if (type == SpieceModel::Type::control || type == SpieceModel::Type::user_defined || text.starts_with("<extra_id_"))
      parts.added.push_back({.text = text, .id = static_cast<int32_t>(parts.pieces.size()), .normalized = false});
    parts.append(text, score);
  }
  return {std::move(parts), config};
}

T5Tokenizer::T5Tokenizer(Parts parts, const TokenizerConfig& config)
    : charsmap_(std::move(parts.charsmap)),
      pieces_(std::move(parts.pieces), parts.where),
      scores_(std::move(parts.scores)),
      unk_(parts.unk) {
  const std::string eos = config.eos.value_or("</s>"), pad = config.pad.value_or("<pad>");
  const auto added = with_special_tokens(std::move(parts.added), pieces_, {eos, pad, parts.unk_text});
  vocab_size_ = count_ids(pieces_, added, parts.where);
  eos_ = special_id(pieces_, added, eos, "end", parts.where);
  pad_ = special_id(pieces_, added, pad, "padding", parts.where);
  unk_score_ = std::ranges::min(scores_) - kUnknownPenalty;
  added_ = AddedTokens(
      added, [this](std::string_view text) { return normalize(text); }, parts.where);
}

std::string T5Tokenizer::normalize(std::string_view text) const {
  return charsmap_ ? charsmap_->normalize(text) : std::string(text);
}

// Viterbi over byte positions, in tokenizers' order and double precision so that ties fall the same way: the first of
// equal paths stays. Every score counts, those of special pieces too.
std::vector<int32_t> T5Tokenizer::encode_word(std::string_view word) const {
  struct Path {
    double score = 0;
    size_t last_start = SIZE_MAX;  // of the piece that ends here; SIZE_MAX: not reached yet
    int32_t last_id = 0;
  };
  std::vector<Path> best(word.size() + 1);
  for (size_t start = 0; start < word.size();) {
    const size_t one_character = base::decode_utf8(word, start).length;
    bool is_known = false;
    const auto offer = [&](size_t length, int32_t id, double score) {
      Path& path = best[start + length];
      const double candidate = score + best[start].score;
      if (path.last_start == SIZE_MAX || candidate > path.score) path = {candidate, start, id};
    };
    pieces_.for_each_prefix(word.substr(start), [&](size_t length, int32_t id) {
      offer(length, id, scores_[static_cast<size_t>(id)]);
      is_known = is_known || length == one_character;
    });
    if (!is_known) offer(one_character, unk_, unk_score_);
    start += one_character;
  }

  std::vector<int32_t> ids;
  for (size_t end = word.size(); end > 0; end = best[end].last_start) {
    const int32_t id = best[end].last_id;
    const bool more_unknown = id == unk_ && !ids.empty() && ids.back() == unk_;
    if (!more_unknown) ids.push_back(id);
  }
  std::ranges::reverse(ids);
  return ids;
}

std::vector<int32_t> T5Tokenizer::encode(std::string_view utf8) const {
  const auto broken = base::first_broken_utf8(utf8);
  base::check(!broken, ErrorKind::bad_input, "the prompt is not valid UTF-8 at byte {}", broken.value_or(0));
  std::vector<int32_t> ids;
  for (const Segment& segment : added_.split(utf8, [this](std::string_view text) { return normalize(text); })) {
    if (segment.token) ids.push_back(*segment.token);
    for (const std::string& word : split_words(segment.text))
      std::ranges::copy(encode_word(word), std::back_inserter(ids));
  }
  return ids;
}

}  // namespace calotype::text
