// spiece.model: SentencePiece's ModelProto, read straight from the protobuf wire format. The library that belongs to
// it is not used: it aborts on some broken models, and its algorithm differs from Hugging Face's (see
// t5_sentencepiece.h).
//
//   const SpieceModel model = read_spiece_model(read_tokenizer_file("t5/spiece.model"));
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/tokenizer_json.h"

namespace calotype::text {

struct SpieceModel {
  enum class Type : uint64_t { normal = 1, unknown = 2, control = 3, user_defined = 4 };
  struct Entry {
    std::string text = {};
    float score = 0;
    Type type = Type::normal;
  };
  std::vector<Entry> pieces;  ///< at their ids
  int32_t unk = 0;
  std::string charsmap;  ///< empty: no normalisation
};

/// Unigram models only; others and byte fallback are `unsupported`. Field numbers: sentencepiece_model.proto.
SpieceModel read_spiece_model(const TokenizerFile& file);

}  // namespace calotype::text
