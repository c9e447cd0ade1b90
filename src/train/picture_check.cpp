#include "train/picture_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <span>

#include "image/image_codec.h"

namespace calotype::train {
namespace {

using image::RgbImage;

constexpr int64_t kLargePixels = 32'000'000;
constexpr double kExtremeAspect = 4;

/// Mean colour of the pixels in [left, right) × [top, bottom), 0 to 255.
std::array<double, 3> mean_colour(const RgbImage& image, int left, int right, int top, int bottom) {
  std::array<uint64_t, 3> sums{};
  for (int y = top; y < bottom; ++y) {
    const uint8_t* pixel = image.pixels.data() +
                           (static_cast<size_t>(y) * static_cast<size_t>(image.width) + static_cast<size_t>(left)) * 3;
    for (int x = left; x < right; ++x, pixel += 3)
      for (size_t c = 0; c < 3; ++c) sums[c] += pixel[c];
  }
  const double count = std::max<int64_t>(1, int64_t{right - left} * (bottom - top));
  return {static_cast<double>(sums[0]) / count, static_cast<double>(sums[1]) / count,
          static_cast<double>(sums[2]) / count};
}

double grey(const std::array<double, 3>& rgb) { return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]; }

struct Grey {
  int width = 0, height = 0;
  std::vector<float> values;
  float at(int x, int y) const {
    return values[static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)];
  }
};

/// Means of factor × factor pixels; what is left over on the right and below is dropped.
Grey shrunk_to_grey(const RgbImage& image, int factor) {
  Grey out{image.width / factor, image.height / factor, {}};
  out.values.reserve(static_cast<size_t>(out.width) * static_cast<size_t>(out.height));
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x)
      out.values.push_back(
          static_cast<float>(grey(mean_colour(image, x * factor, (x + 1) * factor, y * factor, (y + 1) * factor))));
  return out;
}

void note_kind(const image::PictureHeader& header, std::vector<std::string>& warnings) {
  const bool still = header.format == image::Format::tiff || header.format == image::Format::heif;
  if (header.pages > 1)
    warnings.push_back(fmt::format("{} {}, only the first is used", header.pages, still ? "pages" : "frames"));
  if (header.has_alpha) warnings.emplace_back("has an alpha channel; what is transparent becomes white");
}

void note_look(const RgbImage& picture, std::vector<std::string>& warnings) {
  const double aspect =
      static_cast<double>(std::max(picture.width, picture.height)) / std::min(picture.width, picture.height);
  if (aspect > kExtremeAspect)
    warnings.push_back(fmt::format("{}×{} pixels are {:.1f} to 1; such strips learn badly, crop it", picture.width,
                                   picture.height, aspect));
  if (sharpness(picture) < kBlurred) warnings.emplace_back("looks blurred");
}

}  // namespace

Fingerprint fingerprint(const RgbImage& image) {
  constexpr int kColumns = 9, kRows = 8;
  Fingerprint print;
  std::array<double, 3> total{};
  const auto edge = [](int length, int i, int of) { return static_cast<int>(int64_t{length} * i / of); };
  for (int y = 0; y < kRows; ++y) {
    double left = 0;
    for (int x = 0; x < kColumns; ++x) {
      const std::array<double, 3> cell =
          mean_colour(image, edge(image.width, x, kColumns), edge(image.width, x + 1, kColumns),
                      edge(image.height, y, kRows), edge(image.height, y + 1, kRows));
      for (size_t c = 0; c < 3; ++c) total[c] += cell[c];
      if (x > 0 && grey(cell) > left) print.gradients |= uint64_t{1} << (8 * y + x - 1);
      left = grey(cell);
    }
  }
  for (size_t c = 0; c < 3; ++c) print.colour[c] = static_cast<int>(std::lround(total[c] / (kColumns * kRows)));
  return print;
}

bool nearly_equal(const Fingerprint& a, const Fingerprint& b) {
  // 22 different pictures are 14 bits apart or more; as JPEGs of quality 40 to 95 at 37 to 100 % of their size they are
  // 0 to 3 bits and 2 levels from themselves, with one exception of 6; cropped by 2 % 0 to 19.
  constexpr int kBits = 5, kLevels = 8;
  if (std::popcount(a.gradients ^ b.gradients) > kBits) return false;
  for (size_t c = 0; c < 3; ++c)
    if (std::abs(a.colour[c] - b.colour[c]) > kLevels) return false;
  return true;
}

double sharpness(const RgbImage& image) {
  const double side = std::sqrt(static_cast<double>(image.width) * image.height);
  const int whole = std::max(1, static_cast<int>(side / 512));
  const Grey grey = shrunk_to_grey(image, std::min({whole, image.width, image.height}));
  double sum = 0, squares = 0;
  int64_t count = 0;
  for (int y = 1; y + 1 < grey.height; ++y)
    for (int x = 1; x + 1 < grey.width; ++x, ++count) {
      const double laplacian =
          grey.at(x - 1, y) + grey.at(x + 1, y) + grey.at(x, y - 1) + grey.at(x, y + 1) - 4 * grey.at(x, y);
      sum += laplacian;
      squares += laplacian * laplacian;
    }
  if (count == 0) return 0;
  const double mean = sum / static_cast<double>(count);
  return squares / static_cast<double>(count) - mean * mean;
}

PictureCheck check_picture(std::string_view bytes, std::string_view source, const PictureLimits& limits) {
  const auto data = std::as_bytes(std::span(bytes));
  const image::DecodeOptions options{.max_pixels = limits.max_pixels};
  const image::PictureHeader header = image::read_header(data, source, options);
  if (std::min(header.width, header.height) < limits.min_side)
    return {.width = header.width, .height = header.height, .too_small = true};
  static std::mutex one_large_picture;
  std::optional<std::scoped_lock<std::mutex>> alone;
  if (int64_t{header.width} * header.height > kLargePixels) alone.emplace(one_large_picture);
  const RgbImage picture = image::decode(data, source, options);
  PictureCheck out{.width = picture.width, .height = picture.height, .print = fingerprint(picture)};
  note_kind(header, out.warnings);
  note_look(picture, out.warnings);
  return out;
}

}  // namespace calotype::train
