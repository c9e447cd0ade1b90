#include "train/captions.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "train/buckets.h"

namespace calotype::train {
namespace {

using Captions = std::vector<std::string>;

TEST(Captions, Utf8WithAndWithoutByteOrderMark) {
  EXPECT_EQ(decode_caption("a café").text, "a café");
  EXPECT_EQ(decode_caption("\xEF\xBB\xBF"
                           "a café 灯台")
                .text,
            "a café 灯台");
  EXPECT_EQ(decode_caption("a café").note, "");
  EXPECT_EQ(decode_caption("").text, "");
}

// Expected text: Python 3.11, bytes.decode("cp1252").
TEST(Captions, OtherBytesAreWindows1252) {
  const CaptionText text = decode_caption("caf\xE9 \x80 \x93quoted\x94 \x96 \x8Aumava \xFF");
  EXPECT_EQ(text.text, "café € “quoted” – Šumava ÿ");
  EXPECT_NE(text.note.find("byte 4 (0xe9)"), std::string::npos) << text.note;
  EXPECT_EQ(decode_caption("\x81\x8D").text, "  ");  // unassigned: controls, which become blanks
}

TEST(Captions, Utf16WithByteOrderMark) {
  using namespace std::string_view_literals;
  EXPECT_EQ(decode_caption("\xFF\xFE"
                           "a\0\xE9\0\x3D\xD8\xFC\xDD"sv)
                .text,
            "aé🗼");
  EXPECT_EQ(decode_caption("\xFE\xFF"
                           "\0a\0\xE9\xD8\x3D\xDD\xFC"sv)
                .text,
            "aé🗼");
  EXPECT_EQ(decode_caption("\xFF\xFE\x3D\xD8"
                           "a\0b"sv)
                .text,
            "\uFFFDa\uFFFD");
  EXPECT_EQ(decode_caption("\xFF\xFE"sv).note, "read as UTF-16");
}

TEST(Captions, LinesAndControlCharacters) {
  EXPECT_EQ(decode_caption("a\r\nb\rc\nd\u2028"
                           "e\u0085"
                           "f")
                .text,
            "a\nb\nc\nd\ne\nf");
  EXPECT_EQ(decode_caption("a\tb\x1b[31m\x7f").text, "a b [31m ");
}

TEST(Captions, RefusesWhatIsNoCaption) {
  using namespace std::string_view_literals;
  EXPECT_THROW(decode_caption("\x89PNG\0\0"sv), base::Error);
  EXPECT_NO_THROW(decode_caption(std::string(kMaxCaptionBytes, 'a')));
  EXPECT_THROW(decode_caption(std::string(kMaxCaptionBytes + 1, 'a')), base::Error);
}

TEST(Captions, AreOneOrOnePerLine) {
  EXPECT_EQ(split_captions("  a  photo,\n of   a cat \n\n", false), Captions{"a photo, of a cat"});
  EXPECT_EQ(split_captions("one\n\n  two \n", true), (Captions{"one", "two"}));
  EXPECT_EQ(split_captions("\n \n", true), Captions{""});
  EXPECT_EQ(split_captions("", false), Captions{""});
}

TEST(Trigger, IsPutInFrontWhereItIsMissing) {
  EXPECT_EQ(with_trigger("a photo of a cat", "TOK").text, "TOK a photo of a cat");
  EXPECT_EQ(with_trigger("", "TOK").text, "TOK");
  EXPECT_NE(with_trigger("a cat", "TOK").note, "");
  EXPECT_EQ(with_trigger("a photo of TOK", "TOK").text, "a photo of TOK");
  EXPECT_EQ(with_trigger("a photo of TOK", "TOK").note, "");
  EXPECT_EQ(with_trigger("tok", "TOK").text, "TOK tok");
}

TEST(Trigger, ReplacesItsPlaceholders) {
  EXPECT_EQ(with_trigger("[trigger] and [name]s", "TOK").text, "TOK and TOKs");
  EXPECT_EQ(with_trigger("a [name] [trigger]", "[name]").text, "a [name] [name]");
  EXPECT_EQ(with_trigger("a photo of [trigger] at dusk", "").text, "a photo of at dusk");
  EXPECT_NE(with_trigger("[trigger]", "").note, "");
  EXPECT_EQ(with_trigger("plain", "").text, "plain");
}

TEST(Trigger, IsFoundAsAWord) {
  for (const char* text :
       {"cat", "a cat.", "(cat)", "cat’s", "a 猫cat", "cat是", "concatenate cat", "«cat»", "cat-like"})
    EXPECT_TRUE(has_word(text, "cat")) << text;
  for (const char* text : {"", "concatenate", "cats", "cat_1", "écat", "cat2", "Cat", "котcatкот"})
    EXPECT_FALSE(has_word(text, "cat")) << text;
  EXPECT_TRUE(has_word("a<s0>b", "<s0>"));  // its own ends are no letters
  EXPECT_TRUE(has_word("двор", "двор"));
  EXPECT_FALSE(has_word("дворник", "двор"));
  EXPECT_TRUE(has_word("a red fox runs", "red fox"));
  EXPECT_FALSE(has_word("anything", ""));
}

struct BucketCase {
  int width, height;
  std::vector<Bucket> buckets;  ///< at 512, 768, 1024
};

// Values: the rule of buckets.h in exact fractions (Python), multiples of 16.
TEST(Buckets, FollowTheRule) {
  const BucketCase cases[] = {{1024, 1024, {{512, 512}, {768, 768}, {1024, 1024}}},
                              {3000, 2000, {{624, 416}, {944, 624}, {1248, 832}}},
                              {2000, 3000, {{416, 624}, {624, 944}, {832, 1248}}},
                              {1920, 1080, {{672, 384}, {1024, 576}, {1360, 768}}},
                              {4032, 3024, {{576, 432}, {880, 656}, {1168, 880}}},
                              {1000, 1000, {{512, 512}, {768, 768}, {992, 992}}},
                              {640, 480, {{576, 432}, {640, 480}, {640, 480}}},
                              {513, 511, {{512, 496}, {512, 496}, {512, 496}}},
                              {100, 64, {{96, 64}, {96, 64}, {96, 64}}},
                              {333, 777, {{320, 768}, {320, 768}, {320, 768}}},
                              {5000, 700, {{1360, 192}, {2048, 288}, {2736, 368}}},
                              {65, 6400, {{48, 5072}, {64, 6400}, {64, 6400}}},
                              {1023, 1025, {{512, 512}, {768, 768}, {1008, 1024}}}};
  for (const BucketCase& c : cases)
    for (size_t i = 0; i < 3; ++i)
      EXPECT_EQ(bucket_for(c.width, c.height, 512 + 256 * static_cast<int>(i), 16), c.buckets[i])
          << c.width << "×" << c.height << " at " << i;
}

TEST(Buckets, NeverEnlargeAndAlwaysFit) {
  for (int width = 16; width < 3000; width += width / 7 + 1)
    for (int height = 16; height < 60'000; height += height / 3 + 1)
      for (const int resolution : {64, 512, 1024}) {
        const Bucket bucket = bucket_for(width, height, resolution, 16);
        ASSERT_TRUE(bucket.width >= 16 && bucket.height >= 16 && bucket.width <= width && bucket.height <= height);
        ASSERT_TRUE(bucket.width % 16 == 0 && bucket.height % 16 == 0);
        ASSERT_LE(int64_t{bucket.width} * bucket.height, int64_t{resolution} * resolution);
      }
}

TEST(Buckets, WithoutRepetitions) {
  EXPECT_EQ(buckets_for(640, 480, {1024, 512, 768}, 16), (std::vector<Bucket>{{576, 432}, {640, 480}}));
}

TEST(WithWord, ExchangesWholeWordsOnly) {
  EXPECT_EQ(with_word("TOK, a photo of TOK's hat", "TOK", "man"), "man, a photo of man's hat");
  EXPECT_EQ(with_word("TOKYO and ÄTOK", "TOK", "man"), "TOKYO and ÄTOK");
  EXPECT_EQ(with_word("a man", "TOK", "man"), "a man");
  EXPECT_EQ(with_word("", "TOK", "man"), "");
}

}  // namespace
}  // namespace calotype::train
