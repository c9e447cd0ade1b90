// Caption files as text, and the trigger word in it. No tensors, no files: pure functions for foreign bytes.
//
//   CaptionText text = decode_caption(bytes);                       // any encoding that Windows editors write
//   for (const std::string& c : split_captions(text.text, false)) use(with_trigger(c, "TOK").text);
//
// Any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace calotype::train {

inline constexpr size_t kMaxCaptionBytes = 64 << 10;

struct CaptionText {
  std::string text;  ///< valid UTF-8; lines end with \n; no other control characters
  std::string note;  ///< what had to be assumed, "" for plain UTF-8
};

/// UTF-8 or, with a byte order mark, UTF-16; anything else is read as Windows-1252, with a note. Control characters
/// become blanks. bad_input (without a file's name) above kMaxCaptionBytes and for what is no text (NUL bytes).
CaptionText decode_caption(std::string_view bytes);

/// One caption, its line breaks turned into blanks, or with `by_lines` one per line that is not blank. Blanks around
/// and repeated ones are dropped. Always at least one, "" when there is no text.
std::vector<std::string> split_captions(std::string_view text, bool by_lines);

struct TriggeredCaption {
  std::string text;
  std::string note;  ///< what a user should know: the trigger was missing, or a placeholder has no trigger
};

/// "[trigger]" and "[name]" replaced by the trigger, which is put in front where the caption does not have it as a word
/// of its own: ai-toolkit's rules (toolkit/prompt_utils.py, inject_trigger_into_prompt), except that it finds "cat" in
/// "concatenate". Case counts, as it does for T5. Without a trigger the placeholders are dropped.
TriggeredCaption with_trigger(std::string_view caption, std::string_view trigger);

/// Whether `word` is in `text` with no letter, digit or underscore touching it.
bool has_word(std::string_view text, std::string_view word);

/// The text with `other` wherever `word` stands so.
std::string with_word(std::string_view text, std::string_view word, std::string_view other);

}  // namespace calotype::train
