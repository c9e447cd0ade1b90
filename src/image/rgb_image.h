// A picture in memory: interleaved 8-bit sRGB, row by row from the top left, and the geometry that pictures need.
//
//   RgbImage photo = decode("photo.jpg");
//   RgbImage square = resized_to_fill(photo, 1024, 1024);      // cropped to a square around the centre, then scaled
//
// Plain values; the functions are pure and may run on any thread.
#pragma once

#include <cstdint>
#include <vector>

namespace calotype::image {

struct RgbImage {
  int width = 0, height = 0;    ///< pixels
  std::vector<uint8_t> pixels;  ///< height × width × 3, red first
};

/// Error of kind bad_input unless both sides are at least 1 and `pixels` has exactly their size.
void check_image(const RgbImage& image);

/// Lanczos with three lobes, the same pixels as Pillow's resize(…, LANCZOS), which training tools use: 22-bit weights,
/// width first, rounded to 8 bits in between. (Pillow 13 takes the height first where that is cheaper; the rounding
/// then differs.) Sides 1 to 65535, otherwise bad_input.
RgbImage resized(const RgbImage& image, int width, int height);

/// The middle width × height pixels, which must lie inside the image; an odd rest is larger on the right and below.
RgbImage center_cropped(const RgbImage& image, int width, int height);

/// Cropped around the centre to the proportions of width × height (to the nearest whole pixel), then resized.
RgbImage resized_to_fill(const RgbImage& image, int width, int height);

}  // namespace calotype::image
