// Cached latents and prompts as batches, in an order that is a function of seed and number alone.
//
//   FlowData data(dataset.examples, options, latent_cache);
//   FlowBatch batch = data.batch(step);          // the same batch whenever it is asked for
//
// A batch has one size (bucket); a bucket with fewer pictures than a batch holds some of them twice. An epoch visits
// every picture at each of its sizes once. One thread at a time.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "flux/latents.h"
#include "pipeline/text_to_image.h"
#include "train/dataset.h"
#include "train/tensor_cache.h"
#include "train/train_options.h"
#include "vae/autoencoder.h"

namespace calotype::train {

using at::Tensor;

struct FlowBatch {
  Tensor clean_BChw;  ///< f32, scaled as the transformer sees it
  flux::LatentSize size;
  std::vector<std::string> captions;  ///< "" where the caption was dropped
  Tensor mask_B1hw;                   ///< f32, undefined without masks
  at::Generator random;               ///< for the batch's noise levels and noise
};

/// Encodes what the cache lacks: posterior mean and deviation of each picture at each of its sizes, mirrored ones too
/// when options.flip. `vae` is only called when something is missing. Progress stage "encode".
void cache_latents(TensorCache& cache, const std::vector<Example>& examples, const TrainOptions& options,
                   const std::string& vae_fingerprint, const std::function<const vae::Autoencoder&()>& vae,
                   const pipeline::GenerateHooks& hooks);

class FlowData {
 public:
  /// The cache must hold the latents and outlive this.
  FlowData(std::vector<Example> examples, const TrainOptions& options, std::string vae_fingerprint,
           const TensorCache& latents);

  int64_t batches_per_epoch() const { return batches_per_epoch_; }
  FlowBatch batch(int64_t index);
  /// Largest bucket by pixels.
  Bucket largest() const;

 private:
  struct Item {
    size_t example;
    Bucket bucket;
  };
  const std::vector<std::vector<Item>>& order(int64_t epoch);
  Tensor latent(const Item& item, bool flipped, at::Generator& random) const;

  std::vector<Example> examples_;
  const TrainOptions& options_;
  std::string vae_fingerprint_;
  const TensorCache& latents_;
  std::vector<std::vector<Item>> buckets_;  ///< items of one size each
  int64_t batches_per_epoch_ = 0;
  int64_t ordered_epoch_ = -1;
  std::vector<std::vector<Item>> order_;  ///< of that epoch
};

}  // namespace calotype::train
