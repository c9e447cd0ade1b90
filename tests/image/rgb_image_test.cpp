#include "image/rgb_image.h"

#include "golden_pictures.h"

namespace calotype::image {
namespace {

// Values: Pillow 13.0 resize(…, LANCZOS), width then height, on noise, whose overshoots clip. Both sides use the same
// integer weights and rounding, hence equal.
TEST(Resized, EqualsPillow) {
  const RgbImage noise = expected("noise_43x31", 43, 31);
  for (const auto& [width, height] : {std::pair(13, 9), {97, 71}, {43, 12}, {20, 31}, {1, 1}, {60, 10}}) {
    SCOPED_TRACE(std::to_string(width) + "x" + std::to_string(height));
    expect_close(resized(noise, width, height),
                 expected("noise_to_" + std::to_string(width) + "x" + std::to_string(height), width, height), 0);
  }
}

TEST(Resized, SameSizeChangesNothing) {
  const RgbImage noise = expected("noise_43x31", 43, 31);
  EXPECT_EQ(resized(noise, 43, 31).pixels, noise.pixels);
}

TEST(Resized, RefusesSidesWithoutSense) {
  const RgbImage noise = expected("noise_43x31", 43, 31);
  for (const auto& [width, height] : {std::pair(0, 5), {5, -1}, {70000, 5}})
    error_of(base::ErrorKind::bad_input, [&] { resized(noise, width, height); });
  error_of(base::ErrorKind::bad_input, [] { resized({2, 2, {1, 2, 3}}, 1, 1); });
}

TEST(CenterCropped, TakesTheMiddle) {
  RgbImage row{5, 1, {}};
  for (uint8_t x = 0; x < 5; ++x) row.pixels.insert(row.pixels.end(), {x, x, x});
  EXPECT_EQ(center_cropped(row, 3, 1).pixels, (std::vector<uint8_t>{1, 1, 1, 2, 2, 2, 3, 3, 3}));
  EXPECT_EQ(center_cropped(row, 2, 1).pixels, (std::vector<uint8_t>{1, 1, 1, 2, 2, 2}));  // odd rest on the right
  error_of(base::ErrorKind::bad_input, [&] { center_cropped(row, 6, 1); });
}

// Values: Pillow 13.0, crop((6, 0, 37, 31)) and resize to 20×20.
TEST(ResizedToFill, CropsToTheProportionsFirst) {
  expect_close(resized_to_fill(expected("noise_43x31", 43, 31), 20, 20), expected("noise_filling_20x20", 20, 20), 0);
}

TEST(ResizedToFill, StripsDoNotExplode) {
  const RgbImage strip{1, 65535, std::vector<uint8_t>(65535 * 3, 77)};
  const RgbImage square = resized_to_fill(strip, 64, 64);
  EXPECT_EQ(square.pixels, std::vector<uint8_t>(64 * 64 * 3, 77));
}

}  // namespace
}  // namespace calotype::image
