// Oracle: transformers 5.23 (tokenizers 0.23) CLIPTokenizer and T5TokenizerFast, through tools/reference/tokens.py. Ids
// are whole numbers and have to be equal, every one of them.
#include <gtest/gtest.h>
#include <unistd.h>
#include <utf8proc.h>

#include <atomic>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/utf8.h"
#include "text/clip_bpe.h"
#include "text/t5_sentencepiece.h"

namespace calotype::text {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;
using Ids = std::vector<int32_t>;

const fs::path kRoot = CALOTYPE_SOURCE_DIR;
const fs::path kGolden = kRoot / "tests/golden";
const fs::path kClipFolder = kRoot / "models/tokenizers/clip", kT5Folder = kRoot / "models/tokenizers/t5";

const ClipTokenizer& clip() {
  static const ClipTokenizer tokenizer = ClipTokenizer::load(kClipFolder);
  return tokenizer;
}

const T5Tokenizer& t5() {
  static const T5Tokenizer tokenizer = T5Tokenizer::load(kT5Folder);
  return tokenizer;
}

std::vector<json> read_rows(const char* name) {
  std::ifstream file(kGolden / name);
  std::vector<json> rows;
  for (std::string line; std::getline(file, line);) rows.push_back(json::parse(line));
  return rows;
}

uint64_t digest(const Ids& ids) {  // FNV-1a over whole ids, as in tokens.py
  uint64_t value = 0xCBF29CE484222325;
  for (const int32_t id : ids) value = (value ^ static_cast<uint64_t>(id)) * 0x100000001B3;
  return value;
}

std::string hex(uint64_t value) { return fmt::format("{:016x}", value); }

std::string repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

/// The error that `call` throws; anything else it does is a failure.
template <typename Call>
base::Error error_of(Call call) {
  try {
    call();
  } catch (const base::Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return {ErrorKind::internal, ""};
}

void expect_error(const base::Error& error, ErrorKind kind, const std::vector<std::string>& words) {
  EXPECT_EQ(base::name(error.kind()), base::name(kind)) << error.what();
  for (const std::string& word : words)
    EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
}

// --- equality -----------------------------------------------------------------------------------------------------

TEST(Tokenizers, MatchHuggingFaceOnEveryGoldenText) {
  const auto rows = read_rows("tokens.jsonl");
  ASSERT_GE(rows.size(), 1000u);
  for (const json& row : rows) {
    if (row[1] != 1) continue;
    const std::string text = row[0];
    EXPECT_EQ(clip().encode(text), row[2].get<Ids>()) << row[0];
    EXPECT_EQ(t5().encode(text), row[3].get<Ids>()) << row[0];
  }
}

// A quadratic search needs minutes for these texts of about 100 kB; under sanitizers a linear one needs about a second.
TEST(Tokenizers, MatchHuggingFaceOnLongTextsInLittleTime) {
  int tried = 0;
  for (const json& row : read_rows("tokens.jsonl")) {
    if (row[1] == 1) continue;
    ++tried;
    const std::string text = repeat(row[0], row[1]);
    const std::clock_t start = std::clock();
    const Ids clip_ids = clip().encode(text), t5_ids = t5().encode(text);
    EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 8.0) << text.substr(0, 60);
    EXPECT_EQ(json::array({clip_ids.size(), hex(digest(clip_ids))}), row[2]) << text.substr(0, 60);
    EXPECT_EQ(json::array({t5_ids.size(), hex(digest(t5_ids))}), row[3]) << text.substr(0, 60);
  }
  EXPECT_GE(tried, 10);
}

// Letters, numbers, lower case, NFC, character map and grapheme clusters of each code point of planes 0 to 3 and 14.
TEST(Tokenizers, MatchHuggingFaceOnEveryCodePoint) {
  std::ifstream file(kGolden / "tokens_unicode.txt");
  int blocks = 0, different = 0;
  for (std::string first, clip_digest, t5_digest; file >> first >> clip_digest >> t5_digest; ++blocks) {
    const auto start = static_cast<char32_t>(std::stoul(first, nullptr, 16));
    std::string text;
    for (char32_t c = start; c < start + 256; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      if (!text.empty()) text += ' ';
      for (const char32_t part : {U'e', U'\u0323', c, U'\u0301', c, U'e', U'\u0323'}) base::append_utf8(text, part);
    }
    const bool same = hex(digest(clip().encode(text))) == clip_digest && hex(digest(t5().encode(text))) == t5_digest;
    if (!same) ++different;
    if (!same) std::cerr << "block U+" << first << " differs\n";
  }
  EXPECT_EQ(blocks, 0x500);
  // The corrections of tokenizer_unicode.cpp are complete for utf8proc with Unicode 15.0; one with newer tables may
  // know letters and marks that tokenizers 0.23 does not: under twenty blocks a version.
  EXPECT_LE(different, std::string(utf8proc_unicode_version()) == "15.0.0" ? 0 : 40);
}

// flux-architecture.md §8.3, found with the real vocabularies by another program.
TEST(Tokenizers, MatchPublishedIds) {
  EXPECT_EQ(clip().encode("a photo of a cat"), (Ids{320, 1125, 539, 320, 2368}));
  EXPECT_EQ(t5().encode("a photo of a cat"), (Ids{3, 9, 1202, 13, 3, 9, 1712}));
  EXPECT_EQ(clip().encode("it's the dog's 2nd ball!!"), (Ids{585, 568, 518, 1929, 568, 273, 1764, 1069, 748}));
  EXPECT_EQ(t5().encode("it's the dog's 2nd ball!!"), (Ids{34, 31, 7, 8, 1782, 31, 7, 204, 727, 1996, 1603}));
  EXPECT_EQ(clip().encode(""), Ids{});
  EXPECT_EQ(t5().encode(""), Ids{});
  EXPECT_EQ((std::array{clip().bos(), clip().eos(), clip().pad(), clip().vocab_size()}),
            (std::array{49406, 49407, 49407, 49408}));
  EXPECT_EQ((std::array{t5().pad(), t5().eos(), t5().unk(), t5().vocab_size()}), (std::array{0, 1, 2, 32100}));
}

TEST(Tokenizers, EncodeFromManyThreadsAtOnce) {
  const std::string text = "a red fox, 35mm film photo, don't ½ 猫 👩🏽‍🚀";
  const Ids clip_ids = clip().encode(text), t5_ids = t5().encode(text);
  std::atomic<int> different = 0;
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i)
        if (clip().encode(text) != clip_ids || t5().encode(text) != t5_ids) ++different;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(different, 0);
}

TEST(Tokenizers, NameTheByteWhereUtf8IsBroken) {
  for (const char* text : {"cat \xff", "cat \xc0\x80", "cat \xed\xa0\x80", "cat \xe7\x8c", "cat \xf4\x90\x80\x80"}) {
    expect_error(error_of([&] { clip().encode(text); }), ErrorKind::bad_input, {"byte 4"});
    expect_error(error_of([&] { t5().encode(text); }), ErrorKind::bad_input, {"byte 4"});
  }
}

// --- loading routes -----------------------------------------------------------------------------------------------

TEST(Tokenizers, LoadSmallOnesByEveryRoute) {
  const fs::path clip_small = kGolden / "tokens_clip_small", t5_small = kGolden / "tokens_t5_small";
  const auto clip_json = ClipTokenizer::load(clip_small), clip_vocab = ClipTokenizer::load(clip_small / "vocab.json");
  const auto t5_json = T5Tokenizer::load(t5_small), t5_spiece = T5Tokenizer::load(t5_small / "spiece.model");
  const auto t5_plain = T5Tokenizer::load(kGolden / "tokens_t5_plain");
  const auto rows = read_rows("tokens_small.jsonl");
  ASSERT_GE(rows.size(), 300u);
  for (const json& row : rows) {
    const std::string text = row[1];
    const Ids ids = row[2];
    if (row[0] == "tokens_clip_small") {
      EXPECT_EQ(clip_json.encode(text), ids) << row[1];
      EXPECT_EQ(clip_vocab.encode(text), ids) << row[1];
    } else if (row[0] == "tokens_t5_small") {
      EXPECT_EQ(t5_json.encode(text), ids) << row[1];
      EXPECT_EQ(t5_spiece.encode(text), ids) << row[1];
    } else {
      EXPECT_EQ(t5_plain.encode(text), ids) << row[1];
    }
  }
  EXPECT_EQ(clip_json.pad(), 0);  // "!", from tokenizer_config.json
  EXPECT_EQ(clip_vocab.pad(), 0);
  EXPECT_EQ(t5_json.vocab_size(), t5_spiece.vocab_size());
}

/// The tokenizer.json that transformers would save for the real CLIP vocabulary: the small one's settings around it.
template <typename MakeMerge>
json real_clip_json(MakeMerge make_merge) {
  json file = json::parse(base::read_file(kGolden / "tokens_clip_small/tokenizer.json", 1 << 20));
  file["model"]["vocab"] = json::parse(base::read_file(kClipFolder / "vocab.json", 2 << 20));
  file["model"]["merges"] = json::array();
  std::istringstream merges(base::read_file(kClipFolder / "merges.txt", 2 << 20));
  std::string line, left, right;
  std::getline(merges, line);
  while (merges >> left >> right) file["model"]["merges"].push_back(make_merge(left, right));
  file["added_tokens"].erase(0);  // the small one's padding
  file["added_tokens"][0]["id"] = 49406;
  file["added_tokens"][1]["id"] = 49407;
  return file;
}

TEST(Tokenizers, LoadRealClipFromTokenizerJson) {
  const auto as_pair = [](const std::string& left, const std::string& right) { return json::array({left, right}); };
  const auto as_text = [](const std::string& left, const std::string& right) { return json(left + " " + right); };
  for (const json& file : {real_clip_json(as_pair), real_clip_json(as_text)}) {
    const auto tokenizer = ClipTokenizer::from_tokenizer_json({"clip.json", file.dump()});
    EXPECT_EQ(tokenizer.pad(), 49407);
    for (const json& row : read_rows("tokens.jsonl")) {
      if (row[1] != 1) continue;
      EXPECT_EQ(tokenizer.encode(row[0].get<std::string>()), row[2].get<Ids>()) << row[0];
    }
  }
}

TEST(Tokenizers, AcceptTheSettingsOfOlderVersions) {
  json clip_file = json::parse(base::read_file(kGolden / "tokens_clip_small/tokenizer.json", 1 << 20));
  clip_file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
      R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
  clip_file["pre_tokenizer"]["pretokenizers"][1].erase("use_regex");
  EXPECT_NO_THROW(ClipTokenizer::from_tokenizer_json({"old.json", clip_file.dump()}));

  json t5_file = json::parse(base::read_file(kGolden / "tokens_t5_small/tokenizer.json", 1 << 20));
  t5_file["pre_tokenizer"] = json::parse(R"({"type":"Metaspace","replacement":"▁","add_prefix_space":true})");
  EXPECT_NO_THROW(T5Tokenizer::from_tokenizer_json({"old.json", t5_file.dump()}));
}

// --- files that are wrong -------------------------------------------------------------------------------------------

struct Damage {
  const char* pointer;  // of the value to replace
  json value;           // discarded: remove
  ErrorKind kind;
  std::vector<std::string> words;
};

const json kRemove = json(json::value_t::discarded);

json damaged(json file, const Damage& damage) {
  const json::json_pointer pointer(damage.pointer);
  if (damage.value.is_discarded())
    file[pointer.parent_pointer()].erase(pointer.back());
  else
    file[pointer] = damage.value;
  return file;
}

TEST(ClipTokenizer, RefusesWrongFilesNamingTheField) {
  using enum ErrorKind;
  const json good = json::parse(base::read_file(kGolden / "tokens_clip_small/tokenizer.json", 1 << 20));
  const Damage damages[] = {
      {"/model", kRemove, corrupt_file, {"bad.json", "\"model\""}},
      {"/model", 7, corrupt_file, {"bad.json: model is number 7", "object"}},
      {"/model/type", "WordPiece", unsupported, {"bad.json: model.type", "WordPiece"}},
      {"/model/vocab", json::array(), corrupt_file, {"bad.json: model.vocab", "object"}},
      {"/model/vocab", json::object(), corrupt_file, {"bad.json: model.merges", "vocabulary lacks"}},
      {"/model/vocab/a", "x", corrupt_file, {"bad.json: model.vocab[\"a\"]", "whole number"}},
      {"/model/vocab/a", -1, corrupt_file, {"model.vocab[\"a\"] is -1"}},
      {"/model/vocab/a", 1.5, corrupt_file, {"model.vocab[\"a\"] is 1.5"}},
      {"/model/vocab/a", 4'000'000, corrupt_file, {"model.vocab[\"a\"] is 4000000", "3999999"}},
      {"/model/vocab/a", 18446744073709551615u, corrupt_file, {"model.vocab[\"a\"]"}},
      {"/model/vocab/a", 0, corrupt_file, {"both have id 0"}},
      {"/model/vocab/th", kRemove, corrupt_file, {"bad.json: model.merges", "\"th\"", "lacks"}},
      {"/model/merges", 3, corrupt_file, {"bad.json: model.merges is number 3"}},
      {"/model/merges/4", "abc", corrupt_file, {"model.merges[4]", "abc"}},
      {"/model/merges/4", "a b c", corrupt_file, {"model.merges[4]"}},
      {"/model/merges/4", json::array({"a", 1}), corrupt_file, {"model.merges[4][1]", "string"}},
      {"/model/merges/4", json::array({"zzzz", "a"}), corrupt_file, {"merge 4", "zzzz"}},
      {"/model/end_of_word_suffix", nullptr, corrupt_file, {"end_of_word_suffix"}},
      {"/model/end_of_word_suffix", "@@", unsupported, {"model.end_of_word_suffix", "@@"}},
      {"/model/fuse_unk", true, unsupported, {"model.fuse_unk"}},
      {"/model/dropout", 0.5, unsupported, {"model.dropout"}},
      {"/model/unk_token", "nothing", corrupt_file, {"\"nothing\"", "unknown token"}},
      {"/normalizer", nullptr, unsupported, {"normalizer"}},
      {"/normalizer", json{{"type", "NFKC"}}, unsupported, {"bad.json: normalizer", "NFKC"}},
      {"/normalizer/normalizers/1/content", "_", unsupported, {"bad.json: normalizer"}},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\w+", unsupported, {"bad.json: pre_tokenizer", "\\w+"}},
      {"/pre_tokenizer/pretokenizers/1/add_prefix_space", true, unsupported, {"bad.json: pre_tokenizer"}},
      {"/added_tokens", 5, corrupt_file, {"bad.json: added_tokens"}},
      {"/added_tokens/1/id", "x", corrupt_file, {"added_tokens[1].id"}},
      {"/added_tokens/1/id", -3, corrupt_file, {"added_tokens[1].id"}},
      {"/added_tokens/1/id", 5, corrupt_file, {"<|startoftext|>", "id 5"}},
      {"/added_tokens/1/lstrip", true, unsupported, {"added_tokens[1].lstrip"}},
      {"/added_tokens/1/content", "", corrupt_file, {"added_tokens[1].content", "empty"}},
      {"/added_tokens/1/content", "!", corrupt_file, {"\"!\""}},
  };
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.pointer + damage.value.dump());
    const std::string bytes = damaged(good, damage).dump();
    expect_error(error_of([&] { ClipTokenizer::from_tokenizer_json({"bad.json", bytes}); }), damage.kind, damage.words);
  }
}

TEST(ClipTokenizer, RefusesWrongVocabularyAndMerges) {
  using enum ErrorKind;
  const std::string vocab = base::read_file(kGolden / "tokens_clip_small/vocab.json", 1 << 20);
  const auto load = [&](const std::string& vocab_bytes, const std::string& merges) {
    return error_of([&] { ClipTokenizer::from_vocab_and_merges({"v.json", vocab_bytes}, {"m.txt", merges}); });
  };
  expect_error(load(vocab, "#version: 0.2\na b c\n"), corrupt_file, {"m.txt: line 2", "a b c"});
  expect_error(load(vocab, "#version: 0.2\n\n"), corrupt_file, {"m.txt: line 2"});
  expect_error(load(vocab, "a zzzz\n"), corrupt_file, {"m.txt", "zzzz"});
  expect_error(load(vocab, "\xff\xfe b\n"), corrupt_file, {"m.txt", "\\xff"});
  expect_error(load("{\"a\": 0}", ""), corrupt_file, {"v.json", "<|startoftext|>", "start token"});
  expect_error(load("[]", ""), corrupt_file, {"v.json", "object"});
  expect_error(load("", ""), corrupt_file, {"v.json", "JSON"});
  expect_error(load("{\"a\": ", ""), corrupt_file, {"v.json", "JSON"});
  expect_error(load("{\"a\xff\": 1}", ""), corrupt_file, {"v.json", "JSON"});
  expect_error(load(repeat("[", 100'000), ""), corrupt_file, {"v.json", "nested more than", "deep"});
}

TEST(T5Tokenizer, RefusesWrongFilesNamingTheField) {
  using enum ErrorKind;
  const json good = json::parse(base::read_file(kGolden / "tokens_t5_small/tokenizer.json", 1 << 20));
  const Damage damages[] = {
      {"/model", kRemove, corrupt_file, {"bad.json", "\"model\""}},
      {"/model/type", "BPE", unsupported, {"bad.json: model.type", "BPE"}},
      {"/model/byte_fallback", true, unsupported, {"model.byte_fallback"}},
      {"/model/unk_id", kRemove, corrupt_file, {"unk_id"}},
      {"/model/unk_id", 184, corrupt_file, {"model.unk_id is number 184", "183"}},
      {"/model/vocab", json::object(), corrupt_file, {"model.vocab", "array"}},
      {"/model/vocab", json::array(), corrupt_file, {"bad.json: model.vocab has 0 pieces"}},
      {"/model/vocab/7", "a", corrupt_file, {"model.vocab[7]", "array"}},
      {"/model/vocab/7", json::array({"x"}), corrupt_file, {"model.vocab[7]"}},
      {"/model/vocab/7/0", 4, corrupt_file, {"model.vocab[7][0]", "string"}},
      {"/model/vocab/7/1", "nan", corrupt_file, {"model.vocab[7][1]", "number"}},
      {"/model/vocab/7/0", "</s>", corrupt_file, {"bad.json: model.vocab", "\"</s>\" twice"}},
      {"/model/vocab/1/0", "<end>", corrupt_file, {"</s>"}},
      {"/added_tokens/0/id", 3, corrupt_file, {"<pad>", "id 3"}},
      {"/added_tokens/0/id", 4'000'000, corrupt_file, {"added_tokens[0].id"}},
      {"/added_tokens/0/rstrip", true, unsupported, {"added_tokens[0].rstrip"}},
      {"/normalizer", json{{"type", "Lowercase"}}, unsupported, {"bad.json: normalizer", "Lowercase"}},
      {"/normalizer", 5, corrupt_file, {"bad.json: normalizer"}},
      {"/normalizer/precompiled_charsmap", "AAQ*", corrupt_file, {"normalizer.precompiled_charsmap", "base64"}},
      {"/normalizer/precompiled_charsmap", "AAQA", corrupt_file, {"normalizer.precompiled_charsmap", "3 bytes"}},
      {"/normalizer/precompiled_charsmap", "/////wAAAAA=", corrupt_file, {"precompiled_charsmap", "4294967295"}},
      {"/normalizer/precompiled_charsmap", "BAAAAAAAAAD/", corrupt_file, {"precompiled_charsmap", "UTF-8"}},
      {"/pre_tokenizer", nullptr, unsupported, {"pre_tokenizer"}},
      {"/pre_tokenizer/pretokenizers/1/replacement", "_", unsupported, {"pre_tokenizer.pretokenizers[1]"}},
      {"/pre_tokenizer/pretokenizers/1/prepend_scheme", "never", unsupported, {"prepend_scheme"}},
      {"/pre_tokenizer/pretokenizers/1/split", false, unsupported, {"pretokenizers[1].split"}},
      {"/pre_tokenizer/pretokenizers/0/type", "Digits", unsupported, {"pretokenizers[0]", "Digits"}},
  };
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.pointer + damage.value.dump());
    const std::string bytes = damaged(good, damage).dump();
    expect_error(error_of([&] { T5Tokenizer::from_tokenizer_json({"bad.json", bytes}); }), damage.kind, damage.words);
  }
  std::string infinite = good.dump();
  infinite.replace(infinite.find("-", infinite.find("\"vocab\"")), 1, "-9e9999");
  expect_error(error_of([&] { T5Tokenizer::from_tokenizer_json({"bad.json", infinite}); }), corrupt_file, {"bad.json"});
}

TEST(T5Tokenizer, RefusesWrongSpieceModels) {
  using enum ErrorKind;
  const auto load = [](std::string bytes) {
    return error_of([&] { T5Tokenizer::from_spiece_model({"bad.model", std::move(bytes)}); });
  };
  const auto piece = [](std::string text, std::string score, char type) {
    std::string body = "\x0a" + std::string(1, static_cast<char>(text.size())) + text + "\x15" + score + "\x18" + type;
    return "\x0a" + std::string(1, static_cast<char>(body.size())) + body;
  };
  const std::string zero(4, '\0'), nan("\x00\x00\xc0\x7f", 4), infinity("\x00\x00\x80\x7f", 4);
  const std::string start = piece("<pad>", zero, 3) + piece("</s>", zero, 3) + piece("<unk>", zero, 2);
  EXPECT_EQ(T5Tokenizer::from_spiece_model({"good.model", start}).vocab_size(), 103);

  expect_error(load(""), corrupt_file, {"bad.model", "UNKNOWN"});
  expect_error(load("not a model"), corrupt_file, {"bad.model"});
  expect_error(load(start + piece("a", nan, 1)), corrupt_file, {"bad.model: pieces[3]", "nan"});
  expect_error(load(start + piece("a", infinity, 1)), corrupt_file, {"bad.model: pieces[3]", "inf"});
  expect_error(load(start + piece("\xff", zero, 1)), corrupt_file, {"bad.model: pieces[3]", "UTF-8"});
  expect_error(load(start + piece("a", zero, 1) + piece("a", zero, 1)), corrupt_file, {"bad.model", "\"a\" twice"});
  expect_error(load(start + piece("b", zero, 2)), corrupt_file, {"bad.model", "UNKNOWN"});
  expect_error(load(piece("<unk>", zero, 2)), corrupt_file, {"bad.model", "</s>"});
  expect_error(load(start + "\x12\x02\x18\x02"), unsupported, {"bad.model: trainer_spec.model_type is 2"});
  expect_error(load(start + "\x12\x03\x98\x02\x01"), unsupported, {"bad.model: trainer_spec.byte_fallback"});
  expect_error(load(start + "\x1a\x04\x12\x02xy"), corrupt_file, {"bad.model: normalizer_spec.precompiled_charsmap"});
  expect_error(load(start + "\x0a\xff\xff\xff\xff\x0f"), corrupt_file, {"bad.model", "4294967295 bytes"});
  expect_error(load(start + "\x0b"), corrupt_file, {"bad.model", "wire type 3"});
  expect_error(load(start + repeat("\xff", 11)), corrupt_file, {"bad.model", "10 bytes"});
}

// Some damage leaves a tokenizer, which then must encode without reading out of bounds (sanitizers look on).
template <typename Load>
bool survives(Load load, std::string bytes) {
  try {
    (void)load({"bad file", std::move(bytes)}).encode("½ ﬁ e\u0301 <lora> The <|endoftext|> light's 猫 ｶﾞ</s>");
    return true;
  } catch (const base::Error& error) {
    EXPECT_TRUE(error.kind() == ErrorKind::corrupt_file || error.kind() == ErrorKind::unsupported) << error.what();
    return false;
  }
}

template <typename Load>
void expect_survival(Load load, const fs::path& path) {
  const std::string good = base::read_file(path, 1 << 20);
  EXPECT_TRUE(survives(load, good));
  const size_t step = good.size() / 2000 + 1;
  size_t refused = 0, tried = 0;
  for (size_t length = 0; length < good.size(); length += step, ++tried)
    refused += !survives(load, good.substr(0, length));
  // Every cut JSON is broken; a spiece.model may also end after its last piece.
  EXPECT_GE(refused * 100, tried * (path.extension() == ".json" ? 100 : 90)) << path;

  std::mt19937 random(1);
  for (int k = 0; k < 1500; ++k) {
    std::string bytes = good;
    for (int changes = 1 + k % 3; changes-- > 0;) bytes[random() % bytes.size()] = static_cast<char>(random());
    survives(load, std::move(bytes));
  }
}

TEST(Tokenizers, SurviveTruncationAndRandomDamage) {
  const auto clip_json = [](const TokenizerFile& file) { return ClipTokenizer::from_tokenizer_json(file); };
  const auto t5_json = [](const TokenizerFile& file) { return T5Tokenizer::from_tokenizer_json(file); };
  const auto t5_spiece = [](const TokenizerFile& file) { return T5Tokenizer::from_spiece_model(file); };
  expect_survival(clip_json, kGolden / "tokens_clip_small/tokenizer.json");
  expect_survival(t5_json, kGolden / "tokens_t5_small/tokenizer.json");
  expect_survival(t5_spiece, kGolden / "tokens_t5_small/spiece.model");
}

TEST(Tokenizers, SayWhichFileIsMissingOrTooLarge) {
  const fs::path folder = fs::temp_directory_path() / fmt::format("calotype_tokenizer_test_{}", ::getpid());
  fs::create_directories(folder);
  expect_error(error_of([&] { ClipTokenizer::load(folder); }), ErrorKind::not_found, {"vocab.json"});
  expect_error(error_of([&] { T5Tokenizer::load(folder); }), ErrorKind::not_found, {"spiece.model"});
  fs::copy_file(kClipFolder / "vocab.json", folder / "vocab.json");
  expect_error(error_of([&] { ClipTokenizer::load(folder); }), ErrorKind::not_found, {"merges.txt"});
  std::ofstream(folder / "tokenizer.json").close();
  fs::resize_file(folder / "tokenizer.json", (64 << 20) + 1);
  expect_error(error_of([&] { ClipTokenizer::load(folder); }), ErrorKind::bad_input, {"tokenizer.json", "67108864"});
  std::ofstream(folder / "tokenizer_config.json") << R"({"added_tokens_decoder": {"-1": {"content": "x"}}})";
  expect_error(error_of([&] { T5Tokenizer::load(folder); }), ErrorKind::corrupt_file,
               {"tokenizer_config.json: added_tokens_decoder", "\"-1\""});
  fs::remove_all(folder);
}

}  // namespace
}  // namespace calotype::text
