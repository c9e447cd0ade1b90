// What stands beside a vocabulary: tokenizer_config.json and special_tokens_map.json as transformers writes them.
//
//   const TokenizerConfig config = read_tokenizer_config(folder);      // all fields empty without such files
//   const std::string eos = config.eos.value_or("</s>");
//
// Thread-safe.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer_pieces.h"

namespace calotype::text {

struct TokenizerConfig {
  std::optional<std::string> bos, eos, pad, unk;  ///< texts of the special tokens
  std::optional<int64_t> max_length;              ///< "model_max_length": the longest text that the model takes, tokens
  std::optional<int64_t> extra_ids;               ///< T5: how many <extra_id_n> follow the pieces of a spiece.model
  std::vector<AddedToken> added_tokens;           ///< "added_tokens_decoder"; used where there is no tokenizer.json
};

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

}  // namespace calotype::text
