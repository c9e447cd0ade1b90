#include "image/rgb_image.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace calotype::image {
namespace {

using base::check;
using base::ErrorKind;

constexpr int kLobes = 3;
constexpr int kMaxSide = 65535;
// 8 bits of pixel and 22 of weight leave 2 for the sign and for weights whose absolute sum reaches 1.6.
constexpr int kWeightBits = 22;

/// Output pixel i is the sum of input pixels first[i] … first[i] + count[i] − 1 times weights[i * stride + k].
struct Taps {
  std::vector<int> first, count;
  std::vector<int32_t> weights;
  size_t stride = 0;
};

double sinc(double x) { return x == 0 ? 1 : std::sin(std::numbers::pi * x) / (std::numbers::pi * x); }

double lanczos(double x) { return std::abs(x) < kLobes ? sinc(x) * sinc(x / kLobes) : 0; }

// Pillow src/libImaging/Resample.c, precompute_coeffs: the kernel widens when shrinking, so that nothing aliases.
Taps lanczos_taps(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double widened = std::max(scale, 1.0);
  const double reach = kLobes * widened;
  Taps taps;
  taps.stride = static_cast<size_t>(std::ceil(reach)) * 2 + 1;
  taps.weights.assign(taps.stride * static_cast<size_t>(out), 0);
  std::vector<double> exact(taps.stride);
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(center - reach + 0.5));
    const int count = std::min(in, static_cast<int>(center + reach + 0.5)) - first;
    double sum = 0;
    for (int k = 0; k < count; ++k)
      sum += exact[static_cast<size_t>(k)] = lanczos((first + k - center + 0.5) / widened);
    int32_t* weights = taps.weights.data() + static_cast<size_t>(i) * taps.stride;
    for (int k = 0; k < count; ++k)
      weights[k] = static_cast<int32_t>(std::lround(exact[static_cast<size_t>(k)] / sum * (1 << kWeightBits)));
    taps.first.push_back(first);
    taps.count.push_back(count);
  }
  return taps;
}

void check_target(int width, int height) {
  check(width >= 1 && height >= 1 && width <= kMaxSide && height <= kMaxSide, ErrorKind::bad_input,
        "cannot resize to {}×{} pixels, sides must be 1 to {}", width, height, kMaxSide);
}

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

uint8_t to_byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }

RgbImage blank(int width, int height) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width) * static_cast<size_t>(height) * 3)};
}

size_t row_bytes(const RgbImage& image) { return static_cast<size_t>(image.width) * 3; }

RgbImage resized_across(const RgbImage& in, int width) {
  const Taps taps = lanczos_taps(in.width, width);
  RgbImage out = blank(width, in.height);
  uint8_t* to = out.pixels.data();
  for (size_t y = 0; y < static_cast<size_t>(in.height); ++y) {
    const uint8_t* row = in.pixels.data() + y * row_bytes(in);
    for (size_t x = 0; x < static_cast<size_t>(width); ++x) {
      const int32_t* weights = taps.weights.data() + x * taps.stride;
      const uint8_t* from = row + static_cast<size_t>(taps.first[x]) * 3;
      int32_t red = kHalf, green = kHalf, blue = kHalf;
      for (int k = 0; k < taps.count[x]; ++k, from += 3) {
        red += weights[k] * from[0];
        green += weights[k] * from[1];
        blue += weights[k] * from[2];
      }
      *to++ = to_byte(red);
      *to++ = to_byte(green);
      *to++ = to_byte(blue);
    }
  }
  return out;
}

RgbImage resized_down_columns(const RgbImage& in, int height) {
  const Taps taps = lanczos_taps(in.height, height);
  RgbImage out = blank(in.width, height);
  std::vector<int32_t> sums(row_bytes(in));
  for (size_t y = 0; y < static_cast<size_t>(height); ++y) {
    std::ranges::fill(sums, kHalf);
    const uint8_t* from = in.pixels.data() + static_cast<size_t>(taps.first[y]) * row_bytes(in);
    for (int k = 0; k < taps.count[y]; ++k, from += row_bytes(in)) {
      const int32_t weight = taps.weights[y * taps.stride + static_cast<size_t>(k)];
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += weight * from[i];
    }
    std::ranges::transform(sums, out.pixels.begin() + static_cast<ptrdiff_t>(y * row_bytes(in)), to_byte);
  }
  return out;
}

}  // namespace

void check_image(const RgbImage& image) {
  check(image.width >= 1 && image.height >= 1, ErrorKind::bad_input, "a picture of {}×{} pixels has no content",
        image.width, image.height);
  const size_t expected = static_cast<size_t>(image.width) * static_cast<size_t>(image.height) * 3;
  check(image.pixels.size() == expected, ErrorKind::bad_input, "a picture of {}×{} pixels needs {} bytes, got {}",
        image.width, image.height, expected, image.pixels.size());
}

RgbImage resized(const RgbImage& image, int width, int height) {
  check_image(image);
  check_target(width, height);
  if (width == image.width && height == image.height) return image;
  if (width == image.width) return resized_down_columns(image, height);
  RgbImage across = resized_across(image, width);
  return height == image.height ? across : resized_down_columns(across, height);
}

RgbImage center_cropped(const RgbImage& image, int width, int height) {
  check_image(image);
  check(width >= 1 && height >= 1 && width <= image.width && height <= image.height, ErrorKind::bad_input,
        "cannot crop {}×{} pixels out of a picture of {}×{}", width, height, image.width, image.height);
  RgbImage out = blank(width, height);
  const auto left = static_cast<size_t>((image.width - width) / 2);
  const auto top = static_cast<size_t>((image.height - height) / 2);
  for (size_t y = 0; y < static_cast<size_t>(height); ++y)
    std::copy_n(image.pixels.data() + (top + y) * row_bytes(image) + left * 3, row_bytes(out),
                out.pixels.data() + y * row_bytes(out));
  return out;
}

RgbImage resized_to_fill(const RgbImage& image, int width, int height) {
  check_image(image);
  check_target(width, height);
  // Cropping first: a strip of 1×65535 scaled to cover a square would be an enormous picture in between.
  const auto side = [](int other, double ratio, int limit) {
    return static_cast<int>(std::clamp<long>(std::lround(other * ratio), 1, limit));
  };
  const double ratio = static_cast<double>(width) / height;
  return resized(
      center_cropped(image, side(image.height, ratio, image.width), side(image.width, 1 / ratio, image.height)), width,
      height);
}

}  // namespace calotype::image
