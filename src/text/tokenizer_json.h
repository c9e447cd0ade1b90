// Tokenizer files as foreign JSON: bounded parsing, and values that know where they stand so that errors can name it.
//
//   const JsonDocument document(read_tokenizer_file("t5/tokenizer.json"));
//   const int64_t unk = document.root().at("model").at("unk_id").integer(0, kMostIds);
//
// Errors: corrupt_file naming file and field for broken JSON, missing keys, wrong types, numbers out of range.
// Thread-safe once made; a JsonValue is valid as long as its document.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace calotype::text {

constexpr uint64_t kMostTokenizerBytes = 64 << 20;
/// Token ids lie below this; ten times the largest published vocabulary.
constexpr int64_t kMostIds = 4'000'000;

struct TokenizerFile {
  std::string name;  ///< what errors call it
  std::string bytes;
};

/// At most 64 MB.
TokenizerFile read_tokenizer_file(const std::filesystem::path& path);
/// Like std::filesystem's, but what cannot be looked at does not exist instead of throwing.
bool file_exists(const std::filesystem::path& path);
bool is_folder(const std::filesystem::path& path);

class JsonValue {
 public:
  JsonValue(const nlohmann::json& json, std::string_view file, std::string path)
      : json_(&json), file_(file), path_(std::move(path)) {}

  const nlohmann::json& json() const { return *json_; }
  /// "t5/tokenizer.json: model.unk_id", the start of every error about this value.
  std::string where() const;

  /// The member `key` of an object; missing is an error.
  JsonValue at(std::string_view key) const;
  /// Nothing where it is missing or null.
  std::optional<JsonValue> find(std::string_view key) const;
  /// Element of an array; out of range is an error.
  JsonValue at(size_t index) const;
  /// Number of members of an array or object.
  size_t size() const { return json_->size(); }

  const JsonValue& array() const;
  const JsonValue& object() const;
  const std::string& string() const;
  double number() const;
  /// A whole number of [low, high).
  int64_t integer(int64_t low, int64_t high) const;
  bool boolean() const;

  /// Error of kind unsupported: "… is …, expected …: not a CLIP tokenizer".
  [[noreturn]] void fail_unsupported(std::string_view expected, std::string_view tokenizer) const;

 private:
  [[noreturn]] void fail_type(std::string_view expected) const;

  const nlohmann::json* json_;
  std::string_view file_;
  std::string path_;
};

class JsonDocument {
 public:
  explicit JsonDocument(const TokenizerFile& file);
  JsonValue root() const { return {json_, name_, ""}; }

 private:
  std::string name_;
  nlohmann::json json_;
};

}  // namespace calotype::text
