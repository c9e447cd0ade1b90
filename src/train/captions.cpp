#include "train/captions.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace calotype::train {
namespace {

using base::check;
using base::ErrorKind;

constexpr std::string_view kPlaceholders[] = {"[trigger]", "[name]"};

// Windows-1252 from 0x80 to 0x9F, as the WHATWG encoding standard has it; from 0xA0 on it is Latin-1.
constexpr char32_t kWindows1252[32] = {0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021,
                                       0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0x8D,   0x017D, 0x8F,
                                       0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
                                       0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178};

std::string from_windows_1252(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    base::append_utf8(out, byte >= 0x80 && byte < 0xA0 ? kWindows1252[byte - 0x80] : byte);
  }
  return out;
}

/// Lone surrogates and an odd byte at the end become U+FFFD.
std::string from_utf16(std::string_view bytes, bool big_endian) {
  const auto unit = [&](size_t at) -> char32_t {
    const auto first = static_cast<unsigned char>(bytes[at]), second = static_cast<unsigned char>(bytes[at + 1]);
    return static_cast<char32_t>(big_endian ? first << 8 | second : second << 8 | first);
  };
  std::string out;
  size_t at = 0;
  for (; at + 1 < bytes.size(); at += 2) {
    char32_t code = unit(at);
    const bool high = code >= 0xD800 && code < 0xDC00, low = code >= 0xDC00 && code < 0xE000;
    const char32_t next = high && at + 3 < bytes.size() ? unit(at + 2) : 0;
    if (next >= 0xDC00 && next < 0xE000) {
      code = 0x10000 + ((code - 0xD800) << 10) + (next - 0xDC00);
      at += 2;
    } else if (high || low) {
      code = 0xFFFD;
    }
    base::append_utf8(out, code);
  }
  if (at < bytes.size()) base::append_utf8(out, 0xFFFD);
  return out;
}

bool is_control(char32_t code) { return code < 0x20 || (code >= 0x7F && code < 0xA0); }

/// Line ends of Windows and old Macs, U+2028 and U+2029 become \n, other control characters a blank.
std::string with_plain_lines(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const base::Utf8Char c = base::decode_utf8(text, i);
    const bool followed = i + 1 < text.size() && text[i + 1] == '\n';
    if (c.code == '\n' || (c.code == '\r' && !followed) || c.code == 0x85 || c.code == 0x2028 || c.code == 0x2029)
      out += '\n';
    else if (is_control(c.code))
      out += c.code == '\r' ? "" : " ";
    else
      out.append(text.substr(i, c.length));
    i += c.length;
  }
  return out;
}

bool is_blank(char c) { return c == ' ' || c == '\n'; }

std::string with_single_blanks(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (!is_blank(c))
      out += c;
    else if (!out.empty() && out.back() != ' ')
      out += ' ';
  }
  if (out.ends_with(' ')) out.pop_back();
  return out;
}

/// Letters of alphabets that put blanks between words; punctuation, ideographs and emoji stand for themselves.
bool is_word_character(char32_t code) {
  if (code < 0x80)
    return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z') || code == '_';
  return code >= 0xC0 && code < 0x2000 && code != 0xD7 && code != 0xF7;
}

char32_t character_before(std::string_view text, size_t end) {
  if (end == 0) return ' ';
  size_t start = end - 1;
  while (start > 0 && end - start < 4 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
  return base::decode_utf8(text, start).code;
}

char32_t character_at(std::string_view text, size_t at) {
  return at < text.size() ? base::decode_utf8(text, at).code : U' ';
}

size_t replace_all(std::string& text, std::string_view what, std::string_view with) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size(), ++count)
    text.replace(at, what.size(), with);
  return count;
}

}  // namespace

CaptionText decode_caption(std::string_view bytes) {
  check(bytes.size() <= kMaxCaptionBytes, ErrorKind::bad_input, "caption of {} bytes, at most {} are accepted",
        bytes.size(), kMaxCaptionBytes);
  CaptionText out;
  if (bytes.starts_with("\xFF\xFE") || bytes.starts_with("\xFE\xFF")) {
    out = {from_utf16(bytes.substr(2), bytes[0] == '\xFE'), "read as UTF-16"};
  } else {
    if (bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);
    check(bytes.find('\0') == std::string_view::npos, ErrorKind::bad_input, "holds NUL bytes, expected text in UTF-8");
    const auto broken = base::first_broken_utf8(bytes);
    if (!broken)
      out.text = bytes;
    else
      out = {from_windows_1252(bytes),
             fmt::format("not UTF-8 at byte {} (0x{:02x}), read as Windows-1252; check its accents", *broken + 1,
                         static_cast<unsigned char>(bytes[*broken]))};
  }
  out.text = with_plain_lines(out.text);
  return out;
}

std::vector<std::string> split_captions(std::string_view text, bool by_lines) {
  if (!by_lines) return {with_single_blanks(text)};
  std::vector<std::string> captions;
  for (size_t at = 0; at <= text.size();) {
    const std::string_view line = text.substr(at, text.find('\n', at) - at);
    if (std::string caption = with_single_blanks(line); !caption.empty()) captions.push_back(std::move(caption));
    at += line.size() + 1;
  }
  if (captions.empty()) captions.emplace_back();
  return captions;
}

namespace {

/// Where `word` next stands alone in `text`, npos when nowhere.
size_t find_word(std::string_view text, std::string_view word, size_t from) {
  if (word.empty()) return std::string_view::npos;
  const bool starts = is_word_character(character_at(word, 0));
  const bool ends = is_word_character(character_before(word, word.size()));
  for (size_t at = from; (at = text.find(word, at)) != std::string_view::npos; ++at)
    if (!(starts && is_word_character(character_before(text, at))) &&
        !(ends && is_word_character(character_at(text, at + word.size()))))
      return at;
  return std::string_view::npos;
}

}  // namespace

bool has_word(std::string_view text, std::string_view word) {
  return find_word(text, word, 0) != std::string_view::npos;
}

std::string with_word(std::string_view text, std::string_view word, std::string_view other) {
  std::string out;
  size_t copied = 0;
  for (size_t at = 0; (at = find_word(text, word, copied)) != std::string_view::npos; copied = at + word.size())
    out.append(text.substr(copied, at - copied)).append(other);
  return out.append(text.substr(copied));
}

TriggeredCaption with_trigger(std::string_view caption, std::string_view trigger) {
  TriggeredCaption out{.text = std::string(caption)};
  size_t replaced = 0;
  for (const std::string_view placeholder : kPlaceholders) replaced += replace_all(out.text, placeholder, trigger);
  if (replaced > 0) out.text = with_single_blanks(out.text);
  if (trigger.empty()) {
    if (replaced > 0) out.note = "has a place for the trigger word, but none was given";
    return out;
  }
  if (replaced > 0 || has_word(out.text, trigger)) return out;
  out.note = "trigger word missing from the caption, put in front";
  out.text = out.text.empty() ? std::string(trigger) : fmt::format("{} {}", trigger, out.text);
  return out;
}

}  // namespace calotype::train
