#include "train/buckets.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <tuple>

namespace calotype::train {
namespace {

/// How much of one side is cropped away to get from these proportions to those, on a symmetric scale.
double distance(double a, double b) { return std::abs(std::log(a / b)); }

}  // namespace

Bucket bucket_for(int width, int height, int resolution, int multiple) {
  const int64_t area = std::min(int64_t{width} * height, int64_t{resolution} * resolution);
  const double aspect = static_cast<double>(width) / height;
  // Sides that fit exactly must not be lost to rounding: sqrt(512² · 1.5 / 1.5) may be 511.9999….
  constexpr double kSlack = 1e-9;
  const auto steps = [&](double side, int step) {
    const auto down = static_cast<int>(std::floor(side / multiple * (1 + kSlack)));
    return std::max(1, down + step) * multiple;
  };
  const double ideal_width = std::sqrt(static_cast<double>(area) * aspect);
  const double ideal_height = std::sqrt(static_cast<double>(area) / aspect);

  std::optional<Bucket> best;
  const auto better = [&](const Bucket& a, const Bucket& b) {
    const double da = distance(static_cast<double>(a.width) / a.height, aspect);
    const double db = distance(static_cast<double>(b.width) / b.height, aspect);
    if (std::abs(da - db) > kSlack) return da < db;
    return int64_t{a.width} * a.height > int64_t{b.width} * b.height;
  };
  for (const int more_width : {0, 1})
    for (const int more_height : {0, 1}) {
      const Bucket bucket{steps(ideal_width, more_width), steps(ideal_height, more_height)};
      const bool fits =
          bucket.width <= width && bucket.height <= height && int64_t{bucket.width} * bucket.height <= area;
      if (fits && (!best || better(bucket, *best))) best = bucket;
    }
  if (best) return *best;

  // Strips so narrow that one ideal side is below `multiple`: that side takes it, the other what the area leaves.
  const auto rest = [&](int side) {
    const auto most = static_cast<int>(std::min<int64_t>(side, area / multiple));
    return std::max(1, most / multiple) * multiple;
  };
  return width < height ? Bucket{multiple, rest(height)} : Bucket{rest(width), multiple};
}

std::vector<Bucket> buckets_for(int width, int height, const std::vector<int>& resolutions, int multiple) {
  std::vector<Bucket> buckets;
  for (const int resolution : resolutions) buckets.push_back(bucket_for(width, height, resolution, multiple));
  std::ranges::sort(buckets, {},
                    [](const Bucket& b) { return std::tuple(int64_t{b.width} * b.height, b.width, b.height); });
  buckets.erase(std::unique(buckets.begin(), buckets.end()), buckets.end());
  return buckets;
}

}  // namespace calotype::train
