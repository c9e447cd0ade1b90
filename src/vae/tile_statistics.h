// Group normalisation over a picture that is computed in tiles: what each norm would see of the whole is gathered from the
// tiles, so that tiles neither differ in colour nor show seams.
//
//   TileStatistics statistics;
//   for (pass …) { statistics.begin_pass(); for (tile …) { statistics.begin_tile(); run(tile, &statistics); } }
//
// In the first pass each tile is normalised by itself; in later ones by the mean over all tiles of the pass before. After n
// passes the first n norms are exact and the later ones close. One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace calotype::vae {

using at::Tensor;

struct GroupNorm {
  Tensor weight_C, bias_C;
  int64_t groups;
};

class TileStatistics {
 public:
  void begin_pass();
  void begin_tile() { next_ = 0; }
  /// x [1, C, H, W] normalised with what is known of the next norm in the order of the network; gathers x's own share.
  Tensor normalise(const Tensor& x, const GroupNorm& norm);

 private:
  struct Layer {
    Tensor sum_G, squares_G;  ///< f64
    double count = 0;
  };
  std::vector<Layer> gathered_, known_;
  size_t next_ = 0;
};

}  // namespace calotype::vae
