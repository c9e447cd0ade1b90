#include "text/tokenizer_charsmap.h"

#include "base/error.h"
#include "base/utf8.h"
#include "text/tokenizer_unicode.h"

namespace calotype::text {
namespace {

using base::ErrorKind;

// Longer grapheme clusters are looked up character by character.
constexpr size_t kShortCluster = 6;

uint32_t read_u32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t k = 0; k < 4; ++k) value |= uint32_t{static_cast<unsigned char>(bytes[at + k])} << (8 * k);
  return value;
}

// A unit of the double array, Darts-clone's layout: label in bits 0–7 (and 31, set in leaves), bit 8 "has a leaf",
// offset to the children in bits 10–30, times 256 where bit 9 is set. A leaf holds its value in bits 0–30.
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t label(uint32_t unit) { return unit & (1u << 31 | 0xFF); }
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }
uint32_t value(uint32_t leaf) { return leaf & ~(1u << 31); }

}  // namespace

Charsmap::Charsmap(std::string_view blob, std::string_view where) {
  base::check(blob.size() >= 8, ErrorKind::corrupt_file, "{} has {} bytes, expected at least 8", where, blob.size());
  const size_t trie_bytes = read_u32(blob, 0);
  base::check(trie_bytes % 4 == 0 && trie_bytes > 0 && trie_bytes <= blob.size() - 4, ErrorKind::corrupt_file,
              "{} claims a trie of {} bytes, expected a multiple of 4 up to {}", where, trie_bytes, blob.size() - 4);
  trie_.resize(trie_bytes / 4);
  for (size_t i = 0; i < trie_.size(); ++i) trie_[i] = read_u32(blob, 4 + 4 * i);
  replacements_ = blob.substr(4 + trie_bytes);
  base::check(!base::first_broken_utf8(replacements_), ErrorKind::corrupt_file,
              "{} has replacements that are not valid UTF-8", where);
}

// The replacement of the shortest prefix that has one. Hugging Face takes it for the whole of `text`: "ﬁ" followed by
// an accent becomes "fi", and the accent is lost; SentencePiece would take the longest prefix and keep the rest.
std::optional<std::string_view> Charsmap::replacement(std::string_view text) const {
  size_t node = offset(trie_[0]);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    node ^= byte;
    if (byte == 0 || node >= trie_.size() || label(trie_[node]) != byte) return std::nullopt;
    const uint32_t unit = trie_[node];
    node ^= offset(unit);
    if (!has_leaf(unit)) continue;
    const size_t start = node < trie_.size() ? value(trie_[node]) : replacements_.size();
    // A damaged map may point anywhere; in the middle of a character would make broken UTF-8.
    if (start >= replacements_.size() || !base::decode_utf8(replacements_, start).valid) return std::nullopt;
    return std::string_view(replacements_).substr(start, replacements_.find('\0', start) - start);
  }
  return std::nullopt;
}

std::string Charsmap::normalize(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  const auto append = [&](std::string_view part) {
    const auto found = replacement(part);
    if (found) out += *found;
    return found.has_value();
  };
  while (!text.empty()) {
    const std::string_view cluster = text.substr(0, grapheme_length(text));
    text.remove_prefix(cluster.size());
    if (cluster.size() < kShortCluster && append(cluster)) continue;
    for (size_t i = 0; i < cluster.size();) {
      const std::string_view character = cluster.substr(i, base::decode_utf8(cluster, i).length);
      if (!append(character)) out += character;
      i += character.size();
    }
  }
  return out;
}

std::string decode_base64(std::string_view text, std::string_view where) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve(text.size() / 4 * 3);
  base::check(text.size() % 4 == 0, ErrorKind::corrupt_file, "{} has {} characters, expected base64 in groups of 4",
              where, text.size());
  while (text.ends_with('=')) text.remove_suffix(1);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t digit = kAlphabet.find(c);
    base::check(digit != std::string_view::npos, ErrorKind::corrupt_file, "{} is not base64", where);
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 0xFF);
  }
  return out;
}

}  // namespace calotype::text
