#include <vips/vips.h>

#include <memory>

#include "golden_pictures.h"
#include "image/image_codec.h"

namespace calotype::image {
namespace {

using base::ErrorKind;

RgbImage sample() { return expected("colour", 37, 29); }

RgbImage reread(const std::string& bytes) { return decode(as_bytes(bytes), "encoded"); }

TEST(Encode, LosslessRoundTrips) {
  for (const EncodeOptions& options :
       {EncodeOptions{.format = Format::png}, EncodeOptions{.format = Format::webp, .quality = 100}}) {
    for (const RgbImage& image : {sample(), RgbImage{1, 1, {3, 2, 1}}}) {
      const RgbImage again = reread(encode(image, options));
      EXPECT_EQ(again.width, image.width);
      EXPECT_EQ(again.pixels, image.pixels);
    }
  }
}

// On this picture Pillow reaches 43.4 dB as JPEG of quality 95 without chroma subsampling, 35.8 dB with it, and 34.4 dB
// as WebP, which always subsamples. The bounds leave 1 to 2 dB for other encoder versions.
TEST(Encode, LossyStaysClose) {
  EXPECT_GT(psnr(reread(encode(sample(), {.format = Format::jpeg, .quality = 95})), sample()), 41);
  EXPECT_GT(psnr(reread(encode(sample(), {.format = Format::webp, .quality = 95})), sample()), 33);
}

TEST(Encode, QualityMatters) {
  for (const Format format : {Format::jpeg, Format::webp})
    EXPECT_LT(encode(sample(), {.format = format, .quality = 20}).size(),
              encode(sample(), {.format = format, .quality = 98}).size());
}

TEST(Encode, SameInputSameBytes) {
  for (const Format format : {Format::png, Format::jpeg, Format::webp})
    EXPECT_EQ(encode(sample(), {.format = format}), encode(sample(), {.format = format}));
}

TEST(Encode, RefusesWhatCannotBeWritten) {
  error_of(ErrorKind::bad_input, [] { encode({2, 2, {0, 0, 0}}); });
  error_of(ErrorKind::bad_input, [] { encode(sample(), {.format = Format::jpeg, .quality = 0}); });
  error_of(ErrorKind::bad_input, [] { encode(sample(), {.format = Format::jpeg, .quality = 101}); });
  error_of(ErrorKind::unsupported, [] { encode(sample(), {.format = Format::gif}); });
  const RgbImage wide{16384, 1, std::vector<uint8_t>(16384 * 3)};
  error_of(ErrorKind::unsupported, [&] { encode(wide, {.format = Format::webp}); });
  EXPECT_EQ(reread(encode(wide)).width, 16384);
}

// What libvips (libpng, libexif) finds in our files: readers that share no code with the writers.
struct Foreign {
  std::unique_ptr<VipsImage, decltype(&g_object_unref)> image;
  const std::string& bytes;

  explicit Foreign(const std::string& encoded)
      : image(vips_image_new_from_buffer(encoded.data(), encoded.size(), "", nullptr), g_object_unref),
        bytes(encoded) {}

  std::string text(const char* field) const {
    const char* value = nullptr;
    return vips_image_get_string(image.get(), field, &value) == 0 ? value : "";
  }
  std::string blob(const char* field) const {
    const void* data = nullptr;
    size_t size = 0;
    if (vips_image_get_blob(image.get(), field, &data, &size) != 0) return "";
    return {static_cast<const char*>(data), size};
  }
};

const Metadata kMetadata{.parameters = "a lighthouse, \"café\" 🗼\nSteps: 4, Seed: 7",
                         .settings_json = R"({"prompt":"<a> & 🗼","seed":7})",
                         .software = "Calotype 1.2"};

TEST(EncodeMetadata, PngTexts) {
  const std::string png = encode(sample(), {.metadata = kMetadata});
  const Foreign seen(png);
  EXPECT_EQ(seen.text("png-comment-0-parameters"), kMetadata.parameters);
  EXPECT_EQ(seen.text("png-comment-1-calotype"), kMetadata.settings_json);
  EXPECT_EQ(seen.text("png-comment-2-Software"), kMetadata.software);
  EXPECT_NE(seen.blob("xmp-data").find(kAiGenerated), std::string::npos);
}

// UserComment as UTF-16BE; the emoji U+1F5FC is the pair D83D DDFC.
TEST(EncodeMetadata, JpegAndWebpExifAndXmp) {
  for (const Format format : {Format::jpeg, Format::webp}) {
    SCOPED_TRACE(name(format));
    const std::string bytes = encode(sample(), {.format = format, .metadata = kMetadata});
    const Foreign seen(bytes);
    EXPECT_TRUE(seen.text("exif-ifd0-Software").starts_with(kMetadata.software)) << seen.text("exif-ifd0-Software");
    const std::string exif = seen.blob("exif-data");
    const size_t comment = exif.find(std::string("UNICODE\0\0a\0 \0l", 14));
    ASSERT_NE(comment, std::string::npos);
    EXPECT_NE(exif.find(std::string("\0 \xD8\x3D\xDD\xFC\0\n\0S", 10), comment), std::string::npos);
    const std::string xmp = seen.blob("xmp-data");
    EXPECT_NE(xmp.find(kAiGenerated), std::string::npos);
    EXPECT_NE(xmp.find(R"({"prompt":"&lt;a&gt; &amp; 🗼","seed":7})"), std::string::npos);
    EXPECT_EQ(reread(bytes).width, 37);
  }
}

TEST(EncodeMetadata, TaggedAsGeneratedUnlessToldOtherwise) {
  for (const Format format : {Format::png, Format::jpeg, Format::webp}) {
    const std::string tagged = encode(sample(), {.format = format});
    EXPECT_NE(Foreign(tagged).blob("xmp-data").find(kAiGenerated), std::string::npos) << name(format);
    const std::string untagged = encode(sample(), {.format = format, .metadata = {.ai_generated = false}});
    EXPECT_EQ(untagged.find("xmpmeta"), std::string::npos) << name(format);
  }
}

// The JFIF segment has to stay the first one; Pillow wrote it, our own encoder does not.
TEST(EncodeMetadata, JpegWithJfifSegment) {
  const std::string jpeg = jpeg_with_metadata(golden("photo_jpeg.jpeg"), kMetadata);
  EXPECT_EQ(jpeg.substr(6, 4), "JFIF");
  EXPECT_TRUE(Foreign(jpeg).text("exif-ifd0-Software").starts_with(kMetadata.software));
  expect_close(reread(jpeg), decoded("photo_jpeg.jpeg"), 0);
}

TEST(EncodeMetadata, LongTexts) {
  const std::string words(200'000, 'w');
  const Metadata metadata{.parameters = words, .settings_json = "{\"p\":\"" + words + "\"}"};
  const std::string png = encode(sample(), {.metadata = metadata});
  EXPECT_EQ(Foreign(png).text("png-comment-0-parameters"), words);
  const std::string webp = encode(sample(), {.format = Format::webp, .metadata = metadata});
  EXPECT_GT(Foreign(webp).blob("exif-data").size(), 400'000u);

  const std::string jpeg = encode(sample(), {.format = Format::jpeg, .metadata = metadata});
  const std::string exif = Foreign(jpeg).blob("exif-data");
  EXPECT_TRUE(exif.ends_with("w\x20\x26")) << "cut text ends with an ellipsis";
  EXPECT_GT(exif.size(), 65'000u);
  const std::string xmp = Foreign(jpeg).blob("xmp-data");
  EXPECT_EQ(xmp.find("settings"), std::string::npos) << "half a JSON text is of no use";
  EXPECT_NE(xmp.find(kAiGenerated), std::string::npos);
  EXPECT_EQ(reread(jpeg).width, 37);

  const std::string huge(kMaxText + 1, 'w');
  EXPECT_NE(
      error_of(ErrorKind::bad_input, [&] { encode(sample(), {.metadata = {.parameters = huge}}); }).find("parameters"),
      std::string::npos);
}

}  // namespace
}  // namespace calotype::image
