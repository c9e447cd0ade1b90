// One picture looked at before training: can it be decoded, how large is it, and what should its owner know.
//
//   const PictureCheck check = check_picture(bytes, "photo.jpg", {.min_side = 64});
//
// Thread-safe; pictures above 32 megapixels are decoded one at a time, so that many threads do not add up to much
// memory.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "image/rgb_image.h"

namespace calotype::train {

/// What stays of a picture when it is shrunk to a thumbnail: near-duplicates have nearly the same.
struct Fingerprint {
  uint64_t gradients = 0;       ///< bit 8 y + x: brighter at (x + 1, y) than at (x, y) of 9 × 8 cells (dHash)
  std::array<int, 3> colour{};  ///< mean red, green, blue
};

Fingerprint fingerprint(const image::RgbImage& image);

/// True for re-encoded, resized and slightly retouched copies.
bool nearly_equal(const Fingerprint& a, const Fingerprint& b);

/// Variance of the Laplacian of the grey picture (Pech-Pacheco et al., ICPR 2000), which is first shrunk by a whole
/// factor to an area of 512² to 1024² pixels, about what the smallest training resolution shows. Flat or blurred
/// pictures are near 0.
double sharpness(const image::RgbImage& image);

/// Below this a picture is reported as blurred. Of 22 pictures that come with scikit-image and scikit-learn, those that
/// are sharp have 24 to 5600 (but a smooth colour wheel 3.5 and a blurred microscopy 1.9); after a Gaussian of σ = 2
/// pixels 18 fall below 10.4 and the rest, textures, to 16; after σ = 1, where blur is hardly seen, 18 stay above 19.
inline constexpr double kBlurred = 10;

struct PictureLimits {
  int min_side = 64;
  int64_t max_pixels = 178'000'000;
};

struct PictureCheck {
  int width = 0, height = 0;  ///< pixels, upright
  bool too_small = false;     ///< a side is below the limit; nothing else was looked at
  Fingerprint print;
  std::vector<std::string> warnings;
};

/// Decodes the picture. `source` starts the messages of errors, which are those of image::decode().
PictureCheck check_picture(std::string_view bytes, std::string_view source, const PictureLimits& limits);

}  // namespace calotype::train
