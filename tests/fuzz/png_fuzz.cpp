// Our own reader of PNG chunks and texts; and the input as the text of a picture that we write.
#include "base/utf8.h"
#include "fuzz.h"
#include "image/png_metadata.h"
#include "png_mutator.h"

namespace calotype::fuzz {
namespace {

/// 1×1 pixels, as far as it is needed: signature, IHDR, IEND.
constexpr std::string_view kPicture(
    "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\0\0\0\0IEND\xae\x42\x60\x82", 45);

}  // namespace

void fuzz_one(std::string_view input) {
  std::map<std::string, std::string, std::less<>> texts;
  const bool fine = accepted([&] { image::check_png(input, kSource); });
  const bool read = accepted([&] { texts = image::png_texts(input, kSource); });
  require(fine || !read, "texts are read from checked files only");
  for (const auto& [keyword, text] : texts) {
    require(!base::first_broken_utf8(keyword) && !base::first_broken_utf8(text), "texts are valid UTF-8");
    require(text.size() <= 2 * image::kMaxText, "texts have limits");
  }

  const std::string written = image::png_with_metadata(kPicture, {.parameters = std::string(input)});
  const auto again = image::png_texts(written, kSource);
  require(again.contains("XML:com.adobe.xmp"), "a picture says that a model made it");
  const bool plain = !base::first_broken_utf8(input) && input.find('\0') == std::string_view::npos && !input.empty();
  if (plain) require(again.at("parameters") == input, "text survives writing and reading");
}

}  // namespace calotype::fuzz
