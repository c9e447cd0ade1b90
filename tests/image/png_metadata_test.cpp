#include "image/png_metadata.h"

#include "golden_pictures.h"

namespace calotype::image {
namespace {

using base::ErrorKind;

std::string png_with(const Metadata& metadata) { return png_with_metadata(golden("colour.png"), metadata); }

TEST(PngTexts, ReadsWhatPillowWrote) {
  const auto texts = png_texts(golden("texts.png"), "texts.png");
  std::string towers, syllables;
  for (int i = 0; i < 400; ++i) {
    towers += "塔";
    syllables += "la ";
  }
  EXPECT_EQ(texts.at("parameters"), "a café at dusk\nSteps: 4, Seed: 7");  // tEXt, Latin-1
  EXPECT_EQ(texts.at("emoji"), "灯台 🗼 at dawn");                          // iTXt
  EXPECT_EQ(texts.at("packed"), syllables);                                // zTXt
  EXPECT_EQ(texts.at("packed_utf8"), towers);                              // iTXt, compressed
  EXPECT_EQ(texts.size(), 4u);
}

TEST(PngTexts, ReadsWhatWeWrote) {
  for (const std::string text : {"plain\nlines\ttoo", "café", "灯台 🗼", " leading and trailing "}) {
    const auto texts = png_texts(png_with({.parameters = text, .settings_json = "{}", .software = "S"}), "ours");
    EXPECT_EQ(texts.at("parameters"), text);
    EXPECT_EQ(texts.at("calotype"), "{}");
    EXPECT_EQ(texts.at("Software"), "S");
    EXPECT_NE(texts.at("XML:com.adobe.xmp").find(kAiGenerated), std::string::npos);
  }
}

TEST(PngTexts, NulAndBrokenUtf8AreReplaced) {
  const auto texts = png_texts(png_with({.parameters = std::string("a\0b\xFFz", 5)}), "ours");
  EXPECT_EQ(texts.at("parameters"), "a\uFFFDb\uFFFDz");
}

TEST(PngTexts, EmptyTextsTakeNoPlace) { EXPECT_EQ(png_with({.ai_generated = false}), golden("colour.png")); }

TEST(PngTexts, PackedBombIsLeftOut) {
  const auto texts = png_texts(golden("text_bomb.png"), "text_bomb.png");  // a text of 2 MiB in 2 kB
  EXPECT_FALSE(texts.contains("bomb"));
  EXPECT_EQ(texts.at("after"), "still here");
}

TEST(PngTexts, DamageIsAnErrorWithThePlace) {
  const std::string whole = golden("texts.png");
  const auto read = [](std::string_view bytes) { return [=] { png_texts(bytes, "in.png"); }; };
  error_of(ErrorKind::corrupt_file, read("GIF89a"));
  error_of(ErrorKind::corrupt_file, read(std::string_view(whole).substr(0, 50)));

  std::string flipped = whole;
  flipped[flipped.find("dusk")] = 'm';
  EXPECT_NE(error_of(ErrorKind::corrupt_file, read(flipped)).find("byte 33"), std::string::npos);

  std::string claims = whole;
  claims[33] = '\xFF';  // length of the first chunk after the header
  EXPECT_NE(error_of(ErrorKind::corrupt_file, read(claims)).find("in.png"), std::string::npos);
}

// Each compressed text, however short, is unpacked into a megabyte: a picture of 100 MB could hold four million.
TEST(PngTexts, TooManyTextsAreRefused) {
  std::string png = golden("texts.png");
  const std::string chunk = png.substr(33, 12 + static_cast<unsigned char>(png[36]));  // the first text
  for (int i = 0; i < 100; ++i) png.insert(33, chunk);
  const std::string message = error_of(ErrorKind::bad_input, [&] { png_texts(png, "in.png"); });
  EXPECT_NE(message.find("in.png: carries 104 texts, at most 100"), std::string::npos) << message;
}

TEST(PngTexts, FlippedBytesNeverCrash) {
  uint32_t state = 7;
  const auto next = [&](size_t below) { return (state = state * 1664525 + 1013904223) % below; };
  const std::string whole = golden("texts.png");
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = whole.substr(0, 8 + next(whole.size() - 8));
    bytes[next(bytes.size())] = static_cast<char>(next(256));
    try {
      png_texts(bytes, "in.png");
    } catch (const base::Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

// XML has no way to write most control characters; a carriage return would come back as a line feed.
TEST(XmpPacket, EscapesText) {
  const std::string xmp = xmp_packet({}, "\x01<&>\r\n🗼");
  EXPECT_NE(xmp.find(">\uFFFD&lt;&amp;&gt;&#13;\n🗼</calotype:settings>"), std::string::npos);
  EXPECT_EQ(xmp_packet({.ai_generated = false}, ""), "");
}

}  // namespace
}  // namespace calotype::image
