// Files of tests/golden/images (made by tools/reference/images.py) and comparison of pictures.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <span>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "image/image_codec.h"

namespace calotype::image {

inline std::string golden(const std::string& name) {
  return base::read_file(std::string(CALOTYPE_SOURCE_DIR) + "/tests/golden/images/" + name, 1 << 20);
}

inline std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

inline RgbImage decoded(const std::string& name, const DecodeOptions& options = {}) {
  return decode(as_bytes(golden(name)), name, options);
}

/// Expected pixels: width × height × 3 bytes in NAME.rgb.
inline RgbImage expected(const std::string& name, int width, int height) {
  const std::string bytes = golden(name + ".rgb");
  return {width, height, {bytes.begin(), bytes.end()}};
}

/// Fails unless sizes are equal and no channel differs by more than `tolerance`.
inline void expect_close(const RgbImage& got, const RgbImage& want, int tolerance) {
  ASSERT_EQ(got.width, want.width);
  ASSERT_EQ(got.height, want.height);
  ASSERT_EQ(got.pixels.size(), want.pixels.size());
  int worst = 0;
  for (size_t i = 0; i < got.pixels.size(); ++i)
    worst = std::max(worst, std::abs(int{got.pixels[i]} - int{want.pixels[i]}));
  EXPECT_LE(worst, tolerance);
}

inline double psnr(const RgbImage& a, const RgbImage& b) {
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::pow(double(a.pixels[i]) - double(b.pixels[i]), 2);
  return 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.pixels.size()) / sum);
}

/// Runs `work`, which must throw base::Error of this kind; returns its sentence.
template <typename Work>
std::string error_of(base::ErrorKind kind, Work work) {
  try {
    work();
  } catch (const base::Error& error) {
    EXPECT_EQ(base::name(error.kind()), base::name(kind)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error, expected " << base::name(kind);
  return "";
}

}  // namespace calotype::image
