// At which sizes a picture is trained: sides that the model takes, proportions close to the picture's, never enlarged.
//
//   bucket_for(3000, 2000, 1024, 16) == Bucket{1248, 832}
//
// Pure functions, any thread.
#pragma once

#include <vector>

namespace calotype::train {

struct Bucket {
  int width = 0, height = 0;  ///< pixels
  bool operator==(const Bucket&) const = default;
  auto operator<=>(const Bucket&) const = default;
};

/// The picture scaled to an area of min(its own, resolution²) has ideal sides. Each is rounded down or up to a
/// multiple; of the four results, those that exceed that area or a side of the picture are out (rounding both down
/// never does), and the one with proportions closest to the picture's is taken, at equal distance the larger. A side
/// that would be rounded to 0 becomes `multiple`, and the other one what the area leaves. The same candidates as
/// ai-toolkit's (toolkit/buckets.py, get_bucket_for_image_size), which takes the largest area instead and so crops
/// more. Sides of the picture must be at least `multiple`.
Bucket bucket_for(int width, int height, int resolution, int multiple);

/// One bucket for each resolution, ascending, without repetitions.
std::vector<Bucket> buckets_for(int width, int height, const std::vector<int>& resolutions, int multiple);

}  // namespace calotype::train
