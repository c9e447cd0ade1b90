// Caption files and trigger words: the first line of the input is the trigger, the rest a caption file.
#include "base/utf8.h"
#include "fuzz.h"
#include "train/captions.h"

namespace calotype::fuzz {
namespace {

void check_caption(const std::string& caption) {
  require(!base::first_broken_utf8(caption), "captions are valid UTF-8");
  require(caption.find('\n') == std::string::npos && caption.find("  ") == std::string::npos, "blanks are single");
  require(!caption.starts_with(' ') && !caption.ends_with(' '), "no blanks around");
}

}  // namespace

void fuzz_one(std::string_view input) {
  const size_t end = std::min(input.find('\n'), input.size());
  const std::string trigger =
      base::first_broken_utf8(input.substr(0, end)) || input.substr(0, end).find(' ') != input.npos
          ? "TOK"
          : std::string(input.substr(0, end));
  train::CaptionText text;
  // The sentence is about a file that the caller names.
  if (!accepted([&] { text = train::decode_caption(input.substr(std::min(end + 1, input.size()))); }, "")) return;
  require(!base::first_broken_utf8(text.text), "text is valid UTF-8");
  for (const char c : text.text) require(c == '\n' || static_cast<unsigned char>(c) >= 0x20, "no control characters");
  require(train::decode_caption(text.text).text == text.text || text.text.size() > train::kMaxCaptionBytes ||
              text.text.starts_with("\uFEFF"),
          "decoded text stays as it is");
  for (const bool by_lines : {false, true}) {
    const std::vector<std::string> captions = train::split_captions(text.text, by_lines);
    require(!captions.empty() && (by_lines || captions.size() == 1), "there is a caption");
    for (const std::string& caption : captions) {
      check_caption(caption);
      const std::string triggered = train::with_trigger(caption, trigger).text;
      require(!base::first_broken_utf8(triggered), "the trigger keeps captions valid");
      require(trigger.empty() || triggered.find(trigger) != std::string::npos, "the trigger is in the caption");
      require(!train::has_word(caption, trigger) || triggered.size() >= trigger.size(), "the trigger is kept");
    }
  }
}

}  // namespace calotype::fuzz
