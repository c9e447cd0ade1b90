#include "text/tokenizer_config.h"

#include <charconv>
#include <limits>

#include "base/error.h"

namespace calotype::text {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;

constexpr int64_t kMostExtraIds = 100'000;

/// A special token is written as its text or as an object with "content".
std::optional<std::string> token_text(const JsonValue& root, std::string_view key) {
  const auto value = root.find(key);
  if (!value) return std::nullopt;
  return value->json().is_object() ? value->at("content").string() : value->string();
}

void add_special_tokens(TokenizerConfig& config, const JsonValue& root) {
  const auto fill = [&](std::optional<std::string>& text, std::string_view key) {
    if (!text) text = token_text(root, key);
  };
  fill(config.bos, "bos_token");
  fill(config.eos, "eos_token");
  fill(config.pad, "pad_token");
  fill(config.unk, "unk_token");
}

int64_t parse_id(std::string_view text, const JsonValue& parent) {
  int64_t id = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  base::check(error == std::errc() && end == text.data() + text.size() && id >= 0 && id < kMostIds,
              ErrorKind::corrupt_file, "{} has the key \"{}\", expected a whole number from 0 to {}", parent.where(),
              base::printable(text), kMostIds - 1);
  return id;
}

}  // namespace

TokenizerConfig read_tokenizer_config(const fs::path& folder) {
  TokenizerConfig config;
  if (const fs::path path = folder / "tokenizer_config.json"; file_exists(path)) {
    const JsonDocument document(read_tokenizer_file(path));
    const JsonValue root = document.root();
    add_special_tokens(config, root);
    // transformers writes 10³⁰ for "no limit", which is no 64-bit number.
    if (const auto length = root.find("model_max_length"); length && length->json().is_number_integer())
      config.max_length = length->integer(1, std::numeric_limits<int64_t>::max());
    if (const auto count = root.find("extra_ids")) config.extra_ids = count->integer(0, kMostExtraIds);
    if (const auto tokens = root.find("added_tokens_decoder"))
      for (const auto& [id, unused] : tokens->object().json().items())
        config.added_tokens.push_back(read_added_token(tokens->at(id), parse_id(id, *tokens)));
  }
  if (const fs::path path = folder / "special_tokens_map.json"; file_exists(path)) {
    const JsonDocument document(read_tokenizer_file(path));
    add_special_tokens(config, document.root());
  }
  return config;
}

}  // namespace calotype::text
