#include "text/tokenizer_unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <span>
#include <vector>

#include "base/utf8.h"

namespace calotype::text {
namespace {

struct Range {
  char32_t first, last;
};

// Differences between utf8proc 2.8 (Unicode 15.0) and tokenizers 0.23, found by asking both about every code point.
// Letters and numbers: its regular expressions know Unicode 16.
constexpr Range kNewerLetters[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65},
    {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E},
    {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0},
    {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
    {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D},
};
constexpr Range kNewerNumbers[] = {
    {0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
    {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA},
};

// Lower case: Rust's tables are Unicode 17. Each range maps to as many characters from `to` on.
struct LowerRange {
  char32_t first, last, to;
};
constexpr LowerRange kNewerLower[] = {
    {0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},     {0xA7CC, 0xA7CC, 0xA7CD}, {0xA7CE, 0xA7CE, 0xA7CF},
    {0xA7D2, 0xA7D2, 0xA7D3},    {0xA7D4, 0xA7D4, 0xA7D5},    {0xA7DA, 0xA7DA, 0xA7DB}, {0xA7DC, 0xA7DC, 0x19B},
    {0x10D50, 0x10D65, 0x10D70}, {0x16EA0, 0x16EB8, 0x16EBB},
};

// NFC: its tables are Unicode 9, so marks added later neither move nor compose; text is normalised between them.
// U+11A7 is there because utf8proc 2.8 takes it for a trailing Hangul consonant and drops it.
constexpr Range kInertInNfc[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},
    {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x11A7, 0x11A7},   {0x1715, 0x1715},   {0x1ABF, 0x1ACE},
    {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
};

// Grapheme clusters: its tables are Unicode 17, where these are Extend or SpacingMark.
constexpr Range kNewerExtend[] = {
    {0x0897, 0x0897},   {0x1ACF, 0x1ADD},   {0x1AE0, 0x1AEB},   {0x10D69, 0x10D6D}, {0x10EFA, 0x10EFC},
    {0x113B8, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D0},
    {0x113D2, 0x113D2}, {0x113E1, 0x113E2}, {0x11B60, 0x11B67}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F},
    {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5},
};

template <typename Row>
const Row* find(std::span<const Row> sorted, char32_t code) {
  const auto row = std::ranges::lower_bound(sorted, code, {}, &Row::last);
  return row != sorted.end() && row->first <= code ? &*row : nullptr;
}

bool contains(std::span<const Range> sorted, char32_t code) { return find(sorted, code) != nullptr; }

/// A character with the grapheme break class that `code` has in Unicode 17, for utf8proc to look up.
utf8proc_int32_t with_same_breaks(char32_t code) {
  if (code == 0x11A3A) return 'a';     // Prepend until Unicode 15
  if (code == 0x113D1) return 0x0600;  // Prepend
  return static_cast<utf8proc_int32_t>(contains(kNewerExtend, code) ? 0x0300 : code);
}

/// Canonical decomposition in, NFC in UTF-8 out.
class Composer {
 public:
  explicit Composer(size_t bytes) { out_.reserve(bytes); }

  void add(char32_t code) {
    if (contains(kInertInNfc, code)) {
      flush();
      base::append_utf8(out_, code);
      return;
    }
    utf8proc_int32_t parts[8];  // the longest canonical decomposition has four characters
    int boundary_unused = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts, std::size(parts),
                                               UTF8PROC_DECOMPOSE, &boundary_unused);
    pending_.insert(pending_.end(), parts, parts + count);
  }

  std::string finish() {
    flush();
    return std::move(out_);
  }

 private:
  // utf8proc_map() would sort marks by swapping neighbours: quadratic on the long runs that prompts may contain.
  void flush() {
    const auto mark_class = [](utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; };
    const auto is_mark = [&](utf8proc_int32_t code) { return mark_class(code) != 0; };
    for (auto begin = pending_.begin(); begin != pending_.end();) {
      begin = std::find_if(begin, pending_.end(), is_mark);
      const auto end = std::find_if_not(begin, pending_.end(), is_mark);
      std::ranges::stable_sort(begin, end, {}, mark_class);
      begin = end;
    }
    const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    const auto count =
        utf8proc_normalize_utf32(pending_.data(), static_cast<utf8proc_ssize_t>(pending_.size()), options);
    for (utf8proc_ssize_t i = 0; i < count; ++i)
      base::append_utf8(out_, static_cast<char32_t>(pending_[static_cast<size_t>(i)]));
    pending_.clear();
  }

  std::vector<utf8proc_int32_t> pending_;
  std::string out_;
};

}  // namespace

bool is_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

bool is_letter(char32_t code) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) || contains(kNewerLetters, code);
}

bool is_number(char32_t code) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) || contains(kNewerNumbers, code);
}

std::u32string lower(char32_t code) {
  if (code == U'İ') return U"i\u0307";  // the only character whose lower case is two
  if (const auto* row = find<LowerRange>(kNewerLower, code)) return {row->to + (code - row->first)};
  return {static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code)))};
}

std::string nfc(std::string_view text) {
  // Nothing below U+0300 (lead byte 0xCC) takes part in normalisation.
  if (std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0xCC; })) return std::string(text);
  Composer composer(text.size());
  for (size_t i = 0; i < text.size();) {
    const base::Utf8Char c = base::decode_utf8(text, i);
    composer.add(c.code);
    i += c.length;
  }
  return composer.finish();
}

size_t grapheme_length(std::string_view text) {
  if (text.empty()) return 0;
  base::Utf8Char last = base::decode_utf8(text, 0);
  size_t length = last.length;
  utf8proc_int32_t state = 0;
  while (length < text.size()) {
    const base::Utf8Char next = base::decode_utf8(text, length);
    if (utf8proc_grapheme_break_stateful(with_same_breaks(last.code), with_same_breaks(next.code), &state)) break;
    length += next.length;
    last = next;
  }
  return length;
}

}  // namespace calotype::text
