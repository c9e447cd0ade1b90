// SentencePiece's precompiled character map (nmt_nfkc and the like): a trie of byte strings and their replacements.
//
//   const Charsmap map(bytes, "t5/tokenizer.json: normalizer.precompiled_charsmap");
//   map.normalize("ﬁve\t½") == "five 1⁄2"
//
// Thread-safe once made.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace calotype::text {

class Charsmap {
 public:
  /// `blob` is a little-endian u32 with the trie's size in bytes, the trie (a Darts-clone double array of u32), and the
  /// replacements, each ended by NUL. A blob that is no such thing is corrupt_file, the message starting with `where`.
  Charsmap(std::string_view blob, std::string_view where);

  /// As Hugging Face's Precompiled normalizer does, which is not quite what SentencePiece does: see the definition.
  std::string normalize(std::string_view text) const;

 private:
  std::optional<std::string_view> replacement(std::string_view text) const;

  std::vector<uint32_t> trie_;
  std::string replacements_;
};

std::string decode_base64(std::string_view text, std::string_view where);

}  // namespace calotype::text
