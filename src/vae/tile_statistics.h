// Group normalisation over a picture that is computed in tiles: what each norm would see of the whole is gathered from
// the tiles, so that tiles neither differ in colour nor show seams.
//
//   TileStatistics statistics;
//   do { statistics.begin_pass(); for (tile …) { statistics.begin_tile(kept); run(tile, &statistics); } } while
//   (!statistics.settled());
//
// In the first pass each tile is normalised by itself, in later ones by the sums over all tiles of the pass before.
// Pass n makes the first n norms exact, so passes end at the latest when every norm had one; trained models settle in
// about three. One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace calotype::vae {

using at::Tensor;

struct GroupNorm {
  Tensor weight_C, bias_C;
  int64_t groups;
};

/// The part of a tile that counts, as the rest belongs to its neighbours; in latents, within the tile.
struct KeptRegion {
  int64_t top = 0, height = 0, left = 0, width = 0;
  int64_t tile_height = 0;
};

class TileStatistics {
 public:
  void begin_pass();
  void begin_tile(KeptRegion kept);
  /// True when the finished pass found the statistics that it used itself.
  bool settled() const;
  /// x [1, C, H, W] normalised with what is known of the next norm in the order of the network; gathers x's own share.
  Tensor normalise(const Tensor& x, const GroupNorm& norm);

 private:
  struct Layer {
    Tensor sum_G, squares_G;  ///< f64
    double count = 0;
    Tensor mean() const;
    Tensor deviation() const;
  };
  std::vector<Layer> gathered_, known_;
  KeptRegion kept_;
  size_t next_ = 0;
};

}  // namespace calotype::vae
