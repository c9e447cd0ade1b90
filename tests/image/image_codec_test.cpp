#include "image/image_codec.h"

#include <array>
#include <thread>

#include "base/base64.h"
#include "golden_pictures.h"

namespace calotype::image {
namespace {

using base::ErrorKind;

constexpr int kWidth = 37, kHeight = 29;

struct Case {
  const char* file;
  const char* pixels;
  int tolerance;
};

void expect_all(std::initializer_list<Case> cases, const DecodeOptions& options = {}) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.file);
    expect_close(decoded(c.file, options), expected(c.pixels, kWidth, kHeight), c.tolerance);
  }
}

// Values throughout: Pillow 13.0. Lossless 8-bit formats have one right answer.
TEST(Decode, LosslessFormatsAreExact) {
  expect_all({{"colour.png", "colour", 0},
              {"colour.webp", "colour", 0},
              {"colour.tiff", "colour", 0},
              {"grey.png", "grey", 0},
              {"bits.png", "bits", 0},
              {"palette.png", "palette", 0},
              {"moving.webp", "colour", 0},
              {"moving.gif", "moving_gif", 0}});
}

// Decoders may differ in the inverse transform and in YCbCr → RGB by a level each (libjpeg-turbo, libwebp); AVIF is
// decoded here by libheif with another AV1 decoder and colour conversion.
TEST(Decode, LossyFormatsAreClose) {
  expect_all({{"photo_jpeg.jpeg", "photo_jpeg", 2},
              {"photo_webp.webp", "photo_webp", 2},
              {"photo_avif.avif", "photo_avif", 3},
              {"grey.jpeg", "grey", 2}});  // quality 100: rounding of the coefficients only
}

// 16 bits lose the low byte, as in Pillow and libpng's default.
TEST(Decode, SixteenBits) { expect_all({{"rgb16.png", "rgb16", 0}, {"grey16.png", "grey16", 0}}); }

// Blending is rounded to nearest in 8 bits on both sides.
TEST(Decode, TransparencyGoesOntoTheBackground) {
  expect_all({{"rgba.png", "rgba_on_white", 0},
              {"rgba.webp", "rgba_on_white", 0},
              {"rgba16.png", "rgba16", 0},
              {"grey_alpha.png", "grey_alpha", 0},
              {"palette_alpha.png", "palette_alpha", 0}});
  expect_all({{"rgba.png", "rgba_on_teal", 0}}, {.background = {0, 128, 120}});
}

// lcms on both sides, but libvips goes through 16-bit Lab: two levels, three where blue leaves the gamut.
TEST(Decode, ProfilesAreConvertedToSrgb) {
  expect_all({{"icc_swapped.png", "icc_swapped", 2}, {"icc_wide.png", "icc_wide", 3}, {"icc_srgb.png", "colour", 1}});
  expect_all({{"icc_alpha.png", "icc_alpha_on_teal", 2}}, {.background = {0, 128, 120}});
}

TEST(Decode, UnusableProfilesAreIgnored) {
  expect_all({{"icc_broken.png", "colour", 0}, {"icc_on_grey.png", "grey", 0}});
}

TEST(Decode, ExifOrientationIsApplied) {
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const std::string name = "turned_" + std::to_string(orientation);
    SCOPED_TRACE(name);
    const bool turned = orientation >= 5;
    // JPEG: see above
    expect_close(decoded(name + ".jpeg"), expected(name, turned ? 16 : 24, turned ? 24 : 16), 2);
  }
  expect_close(decoded("turned_6.png"), expected("turned_6_exact", 16, 24), 0);
  expect_close(decoded("turned_6.webp"), expected("turned_6_exact", 16, 24), 0);
  expect_close(decoded("turned_6.avif"), expected("turned_6_avif", 16, 24), 3);  // turned by its decoder: once only
}

// No profile is embedded, so inks have no exact colours. The bounds tell inverted, striped and dropped channels from
// any sensible press.
TEST(Decode, CmykIsNeitherInvertedNorStriped) {
  const RgbImage patches = decoded("cmyk.jpeg");
  ASSERT_EQ(patches.width, 80);
  const auto at = [&](int ink) { return patches.pixels.data() + (80 * 8 + ink * 16 + 8) * 3; };
  for (int c = 0; c < 3; ++c) EXPECT_GT(at(0)[c], 245) << "paper";
  for (int c = 0; c < 3; ++c) EXPECT_LT(at(4)[c], 70) << "black";
  for (int ink = 0; ink < 3; ++ink)  // cyan takes red away, magenta green, yellow blue
    for (int c = 0; c < 3; ++c)
      EXPECT_TRUE(c == ink || at(ink + 1)[ink] + 60 < at(ink + 1)[c]) << "ink " << ink << " channel " << c;
}

TEST(Decode, ContentDecidesNotTheName) {
  const std::string path = testing::TempDir() + "calotype_really_a_webp.png";
  base::write_file(path, golden("colour.webp"));
  expect_close(decode(path), expected("colour", kWidth, kHeight), 0);
  EXPECT_EQ(read_header(path).format, Format::webp);
  std::filesystem::remove(path);
}

TEST(ReadHeader, TellsWhatIsInside) {
  const auto header = [](const char* name) { return read_header(as_bytes(golden(name)), name); };
  const PictureHeader turned = header("turned_6.jpeg");
  EXPECT_EQ(turned.format, Format::jpeg);
  EXPECT_EQ(turned.orientation, 6);
  EXPECT_EQ(turned.width, 16);  // stored as 24×16
  EXPECT_EQ(turned.height, 24);
  EXPECT_EQ(header("moving.gif").pages, 3);
  EXPECT_EQ(header("moving.webp").pages, 3);
  EXPECT_EQ(header("photo_avif.avif").format, Format::heif);
  EXPECT_EQ(header("colour.tiff").format, Format::tiff);
  EXPECT_TRUE(header("rgba16.png").has_alpha);
  EXPECT_FALSE(header("colour.png").has_alpha);
  EXPECT_TRUE(header("icc_wide.png").has_profile);
  EXPECT_FALSE(header("colour.png").has_profile);
  EXPECT_EQ(header("grey_alpha.png").bands, 2);
  EXPECT_EQ(header("cmyk.jpeg").bands, 4);
}

TEST(Formats, NamesAndExtensions) {
  EXPECT_EQ(format_from_name("jpg"), Format::jpeg);
  EXPECT_EQ(format_from_name("avif"), Format::heif);
  EXPECT_EQ(format_from_name("bmp"), std::nullopt);
  for (const Format format : {Format::png, Format::jpeg, Format::webp, Format::tiff, Format::gif, Format::heif})
    EXPECT_EQ(format_from_name(name(format)), format);
  EXPECT_EQ(media_type(Format::jpeg), "image/jpeg");
}

std::string refusal(ErrorKind kind, std::string_view bytes, std::string_view source) {
  const std::string message = error_of(kind, [&] { decode(as_bytes(bytes), source); });
  EXPECT_TRUE(message.starts_with(source)) << message;
  EXPECT_EQ(message.find("no reason given"), std::string::npos) << message;
  return message;
}

TEST(DecodeHostile, WhatIsNotAPictureIsQuoted) {
  EXPECT_NE(refusal(ErrorKind::bad_input, "# Notes\n\x01", "notes.png").find("not a picture (starts with \"# Notes"),
            std::string::npos);
  EXPECT_NE(refusal(ErrorKind::corrupt_file, "", "empty.png").find("empty"), std::string::npos);
  // Formats that libvips would read with loaders made for trusted files.
  refusal(ErrorKind::bad_input, "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "a.svg");
  refusal(ErrorKind::bad_input, "%PDF-1.4\n", "a.pdf");
  refusal(ErrorKind::bad_input, "P6 1 1 255 abc", "a.ppm");
}

TEST(DecodeHostile, PathsThatCannotBeRead) {
  error_of(ErrorKind::not_found, [] { decode("no-such-folder/picture.png"); });
  error_of(ErrorKind::bad_input, [] { decode(std::filesystem::path(testing::TempDir())); });
}

TEST(DecodeHostile, CutOffFilesAreErrorsWithAReason) {
  for (const char* name : {"photo_jpeg.jpeg", "colour.png", "colour.webp", "photo_webp.webp", "still.gif",
                           "colour.tiff", "photo_avif.avif"}) {
    SCOPED_TRACE(name);
    const std::string whole = golden(name);
    for (const double part : {0.95, 0.6, 0.1}) {
      const auto length = static_cast<size_t>(static_cast<double>(whole.size()) * part);
      const std::string message = refusal(ErrorKind::corrupt_file, whole.substr(0, length), name);
      EXPECT_NE(message.find("damaged"), std::string::npos) << message;
    }
  }
}

TEST(DecodeHostile, DamagedPng) { refusal(ErrorKind::corrupt_file, golden("flipped.png"), "flipped.png"); }

TEST(DecodeHostile, BombsStopAtTheHeader) {
  const std::string message = refusal(ErrorKind::bad_input, golden("bomb.png"), "bomb.png");  // 74 bytes
  EXPECT_NE(message.find("20000×20000"), std::string::npos) << message;
  error_of(ErrorKind::bad_input, [] { read_header(as_bytes(golden("bomb.png")), "bomb.png"); });
  error_of(ErrorKind::bad_input, [] { decoded("colour.png", {.max_pixels = kWidth * kHeight - 1}); });
  decoded("colour.png", {.max_pixels = kWidth * kHeight});
}

// Found by flipping bytes: libpng took 1.9 GB for such a file.
TEST(DecodeHostile, ChunksThatClaimGigabytes) {
  std::string png = golden("texts.png");
  png[33] = '\x70';  // first byte of a length
  EXPECT_NE(refusal(ErrorKind::corrupt_file, png, "texts.png").find("at byte 33 needs 18790"), std::string::npos);
}

// libpng would unpack every one of them before any pixel.
TEST(DecodeHostile, HundredsOfTextsAreRefused) {
  std::string png = golden("texts.png");
  const size_t text = 33;  // right behind the header
  const std::string chunk = png.substr(text, 12 + static_cast<unsigned char>(png[text + 3]));
  for (int i = 0; i < 90; ++i) png.insert(text, chunk);
  EXPECT_EQ(decode(as_bytes(png), "texts.png").width, 4);
  for (int i = 0; i < 90; ++i) png.insert(text, chunk);
  refusal(ErrorKind::bad_input, png, "texts.png");
}

// Three pixels by Pillow: opaque, transparent, alpha 127.
TEST(DecodeMask, TransparencyMarksOrElseColours) {
  const auto png = base::base64_decoded(
      "iVBORw0KGgoAAAANSUhEUgAAAAMAAAABCAYAAAAb4BS0AAAAFUlEQVR4nGM8IWfzn4GBgdH84eF6ABucBH5QmzuJAAAAAElFTkSuQmCC");
  const RgbImage mask = decode_mask(std::as_bytes(std::span(*png)), "three");
  for (size_t i = 0; i < 9; ++i) EXPECT_NEAR(mask.pixels[i], (std::array{0, 255, 128}[i / 3]), 1) << i;
  const std::string opaque = golden("colour.png");
  EXPECT_EQ(decode_mask(as_bytes(opaque), "colour.png").pixels, decoded("colour.png").pixels);
}

TEST(DecodeHostile, ExtremeSides) {
  EXPECT_NE(refusal(ErrorKind::corrupt_file, golden("wide_zero.png"), "wide_zero.png").find("width is zero"),
            std::string::npos);
  const RgbImage tall = decoded("tall.png");
  EXPECT_EQ(tall.width, 1);
  EXPECT_EQ(tall.height, 65535);
  EXPECT_EQ(std::vector(tall.pixels.end() - 3, tall.pixels.end()), (std::vector<uint8_t>{0x20, 0x40, 0x60}));
}

// Any damage is either not noticed by the decoder or an Error; sanitizers watch.
TEST(DecodeHostile, FlippedBytesNeverCrash) {
  uint32_t state = 1;
  const auto next = [&](size_t below) { return (state = state * 1664525 + 1013904223) % below; };
  int refused = 0;
  for (const char* name : {"photo_jpeg.jpeg", "icc_wide.png", "palette_alpha.png", "rgba.webp", "moving.gif",
                           "colour.tiff", "turned_6.jpeg"}) {
    const std::string whole = golden(name);
    for (int round = 0; round < 60; ++round) {
      std::string bytes = whole;
      for (int flips = 0; flips < 4; ++flips) bytes[next(bytes.size())] = static_cast<char>(next(256));
      try {
        const RgbImage image = decode(as_bytes(bytes), name, {.max_pixels = 1'000'000});
        EXPECT_NO_THROW(check_image(image));
      } catch (const base::Error&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 50);
}

// Damaged files among good ones: every reason must belong to its own file, although libvips has one error text.
TEST(DecodeConcurrently, EightThreads) {
  const std::string cut_png = golden("colour.png").substr(0, 300), cut_jpeg = golden("photo_jpeg.jpeg").substr(0, 700);
  const std::string png_reason = refusal(ErrorKind::corrupt_file, cut_png, "cut");
  const std::string jpeg_reason = refusal(ErrorKind::corrupt_file, cut_jpeg, "cut");
  ASSERT_NE(png_reason, jpeg_reason);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread)
    threads.emplace_back([&, thread] {
      for (int round = 0; round < 25; ++round) {
        switch ((thread + round) % 4) {
          case 0: expect_close(decoded("icc_srgb.png"), expected("colour", kWidth, kHeight), 1); break;
          case 1: expect_close(decoded("turned_6.webp"), expected("turned_6_exact", 16, 24), 0); break;
          case 2: EXPECT_EQ(refusal(ErrorKind::corrupt_file, cut_png, "cut"), png_reason); break;
          default: EXPECT_EQ(refusal(ErrorKind::corrupt_file, cut_jpeg, "cut"), jpeg_reason);
        }
      }
    });
  for (std::thread& thread : threads) thread.join();
}

// Loaders warn on stderr by default; a library must not.
TEST(Decode, PrintsNothing) {
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  for (const char* name : {"flipped.png", "icc_broken.png", "bomb.png"}) try {
      decoded(name);
    } catch (const base::Error&) {
    }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

}  // namespace
}  // namespace calotype::image
