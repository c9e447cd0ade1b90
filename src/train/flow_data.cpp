#include "train/flow_data.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>
#include <set>

#include "base/sha256.h"
#include "train/flow_loss.h"

namespace calotype::train {
namespace {

std::string latent_key(const Example& example, Bucket bucket, bool flipped, const std::string& vae_fingerprint) {
  return base::sha256_hex(
      fmt::format("{} {}x{} {} {}", example.hash, bucket.width, bucket.height, flipped, vae_fingerprint));
}

double uniform(at::Generator& random) { return at::rand({1}, random, at::kFloat).item<double>(); }

Tensor shuffled(int64_t count, at::Generator& random) { return at::randperm(count, random, at::kLong); }

}  // namespace

void cache_latents(TensorCache& cache, const std::vector<Example>& examples, const TrainOptions& options,
                   const std::string& vae_fingerprint, const std::function<const vae::Autoencoder&()>& vae,
                   const pipeline::GenerateHooks& hooks) {
  const at::NoGradGuard no_grad;
  const bool flips[] = {false, true};
  struct Missing {
    const Example* example;
    Bucket bucket;
    bool flipped;
    std::string key;
  };
  std::vector<Missing> missing;
  for (const Example& example : examples)
    for (const Bucket bucket : example.buckets)
      for (const bool flipped : flips) {
        const std::string key = latent_key(example, bucket, flipped, vae_fingerprint);
        if ((!flipped || options.flip) && !cache.has(key)) missing.push_back({&example, bucket, flipped, key});
      }
  for (size_t i = 0; i < missing.size(); ++i) {
    if (hooks.cancel) hooks.cancel->throw_if_requested();
    const auto& [example, bucket, flipped, key] = missing[i];
    const vae::Autoencoder& encoder = vae();
    const Tensor picture =
        pipeline::to_tensor(load_picture(*example, bucket, flipped)).to(encoder.device(), encoder.dtype());
    const vae::Posterior posterior = encoder.encode(picture);
    const Tensor mean = encoder.scaled(posterior.mean_BChw).to(at::kFloat)[0];
    const Tensor deviation = (posterior.logvar_BChw.to(at::kFloat) * 0.5).exp()[0] * encoder.config().scaling;
    base::check(mean.isfinite().all().item<bool>(), base::ErrorKind::internal,
                "{}: its latents are not finite; try --dtype f32", example->name);
    cache.put(key, {{"mean", mean.to(at::kHalf)}, {"std", deviation.to(at::kHalf)}});
    if (hooks.progress)
      hooks.progress(
          {.stage = "encode", .done = static_cast<int64_t>(i) + 1, .total = static_cast<int64_t>(missing.size())});
  }
  cache.flush();
}

FlowData::FlowData(std::vector<Example> examples, const TrainOptions& options, std::string vae_fingerprint,
                   const TensorCache& latents)
    : examples_(std::move(examples)),
      options_(options),
      vae_fingerprint_(std::move(vae_fingerprint)),
      latents_(latents) {
  std::map<Bucket, std::vector<Item>> by_bucket;
  for (size_t i = 0; i < examples_.size(); ++i)
    for (const Bucket bucket : examples_[i].buckets) by_bucket[bucket].push_back({i, bucket});
  for (auto& [bucket, items] : by_bucket) {
    batches_per_epoch_ += (static_cast<int64_t>(items.size()) + options.batch - 1) / options.batch;
    buckets_.push_back(std::move(items));
  }
}

Bucket FlowData::largest() const {
  Bucket largest;
  for (const auto& items : buckets_) {
    const Bucket b = items.front().bucket;
    if (b.width * b.height > largest.width * largest.height) largest = b;
  }
  return largest;
}

const std::vector<std::vector<FlowData::Item>>& FlowData::order(int64_t epoch) {
  if (epoch == ordered_epoch_) return order_;
  at::Generator random = generator(options_.seed, Stream::order, static_cast<uint64_t>(epoch));
  std::vector<std::vector<Item>> batches;
  for (const std::vector<Item>& items : buckets_) {
    const auto count = static_cast<int64_t>(items.size());
    const Tensor permutation = shuffled(count, random);
    const auto* at = permutation.const_data_ptr<int64_t>();
    for (int64_t first = 0; first < count; first += options_.batch) {
      std::vector<Item> batch;
      for (int64_t i = first; i < first + options_.batch; ++i)
        batch.push_back(items[static_cast<size_t>(at[i % count])]);
      batches.push_back(std::move(batch));
    }
  }
  const Tensor permutation = shuffled(static_cast<int64_t>(batches.size()), random);
  order_.clear();
  for (int64_t i = 0; i < permutation.size(0); ++i)
    order_.push_back(std::move(batches[static_cast<size_t>(permutation[i].item<int64_t>())]));
  ordered_epoch_ = epoch;
  return order_;
}

Tensor FlowData::latent(const Item& item, bool flipped, at::Generator& random) const {
  const std::string key = latent_key(examples_[item.example], item.bucket, flipped, vae_fingerprint_);
  const Tensor mean_Chw = latents_.get(key, "mean").to(at::kFloat);
  if (options_.latents == "mean") return mean_Chw;
  return mean_Chw + latents_.get(key, "std").to(at::kFloat) * at::randn(mean_Chw.sizes(), random, at::kFloat);
}

FlowBatch FlowData::batch(int64_t index) {
  FlowBatch batch{.random = generator(options_.seed, Stream::step, static_cast<uint64_t>(index))};
  const std::vector<Item>& items = order(index / batches_per_epoch_)[static_cast<size_t>(index % batches_per_epoch_)];
  std::vector<Tensor> latents, masks;
  for (const Item& item : items) {
    const Example& example = examples_[item.example];
    // Every sample draws the same amount of numbers, whatever the options, so that runs stay comparable.
    const bool flipped = uniform(batch.random) < 0.5 && options_.flip;
    const auto choice = static_cast<size_t>(uniform(batch.random) * static_cast<double>(example.captions.size()));
    const bool dropped = uniform(batch.random) < options_.caption_dropout;
    latents.push_back(latent(item, flipped, batch.random));
    batch.captions.push_back(dropped ? "" : example.captions[std::min(choice, example.captions.size() - 1)]);
    if (!options_.masked) continue;
    std::vector<uint8_t> mask = load_mask(example, item.bucket, flipped);
    const Tensor pixels = at::from_blob(mask.data(), {1, 1, item.bucket.height, item.bucket.width}, at::kByte);
    masks.push_back(at::adaptive_avg_pool2d(pixels.to(at::kFloat) / 255, latents.back().sizes().slice(1))[0]);
  }
  batch.clean_BChw = at::stack(latents);
  if (options_.masked) batch.mask_B1hw = at::stack(masks);
  batch.size = {
      .channels = batch.clean_BChw.size(1), .height = batch.clean_BChw.size(2), .width = batch.clean_BChw.size(3)};
  return batch;
}

}  // namespace calotype::train
