#include "train/autoencoder_task.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/sha256.h"
#include "train/model_files.h"
#include "weights/fingerprint.h"

namespace calotype::train {

using weights::Component;

namespace {

constexpr double kEdgeWeight = 0.5, kKlWeight = 3e-4;

// Decoded pictures that are kept: decoding a large one takes longer than the step of a small model.
constexpr size_t kHeldBytes = 256'000'000;

/// Mean distance of neighbouring differences along one dimension.
Tensor edge_distance(const Tensor& a, const Tensor& b, int64_t dimension) {
  return (a.diff(1, dimension) - b.diff(1, dimension)).abs().mean();
}

Tensor pooled(const Tensor& x_BCHW, int64_t pool) { return pool == 1 ? x_BCHW : at::avg_pool2d(x_BCHW, {pool, pool}); }

int between(int low, int high, at::Generator& random) {
  return low + static_cast<int>(at::randint(high - low + 1, {1}, random, at::kLong).item<int64_t>());
}

/// A square of the picture, scaled down to `side`; enlarged only where the whole picture is smaller.
image::RgbImage random_square(const image::RgbImage& picture, int side, at::Generator& random) {
  const int shorter = std::min(picture.width, picture.height);
  const int size = between(std::min(side, shorter), shorter, random);
  const int left = between(0, picture.width - size, random), top = between(0, picture.height - size, random);
  image::RgbImage square{.width = size, .height = size};
  for (int y = 0; y < size; ++y) {
    const auto row = picture.pixels.begin() + 3 * ((static_cast<std::ptrdiff_t>(top) + y) * picture.width + left);
    square.pixels.insert(square.pixels.end(), row, row + 3 * size);
  }
  return size == side ? square : image::resized(square, side, side);
}

}  // namespace

Tensor AutoencoderLoss::total() const { return l1 + kEdgeWeight * edges + kKlWeight * kl; }

AutoencoderLoss autoencoder_loss(const vae::Autoencoder& vae, const Tensor& picture_B3HW, const Tensor& noise_BChw,
                                 int64_t pool) {
  const vae::Posterior posterior = vae.encode(picture_B3HW.to(vae.dtype()));
  const Tensor mean = posterior.mean_BChw.to(at::kFloat), logvar = posterior.logvar_BChw.to(at::kFloat);
  const Tensor z = pooled(mean + (logvar * 0.5).exp() * noise_BChw, pool), target = pooled(picture_B3HW, pool);
  const Tensor decoded = vae.decode(vae.scaled(z).to(vae.dtype())).to(at::kFloat);
  return {.l1 = (decoded - target).abs().mean(),
          .edges = edge_distance(decoded, target, 3) + edge_distance(decoded, target, 2),
          .kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()};
}

AutoencoderTask::AutoencoderTask(pipeline::ModelBundle bundle, TrainData data, const TrainOptions& options,
                                 const pipeline::RuntimeOptions& runtime)
    : options_(options),
      bundle_(std::move(bundle)),
      data_(std::move(data)),
      dtype_(runtime.dtype.value_or(at::kFloat)),
      device_(runtime.device) {
  std::string content = weights::fingerprint(bundle_.part(Component::vae));
  for (const Example& example : data_.train) content += example.hash;
  identity_ = base::sha256_hex(content);
  vae_ = std::make_unique<vae::Autoencoder>(
      bundle_.part(Component::vae),
      weights::LoadOptions{.dtype = dtype_, .device = device_, .training = true, .trained = &weights_},
      vae::Autoencoder::Parts::both);
  for (const auto& [name, value] : weights_) parameters_.push_back(trained_weight(name, value));
  bundle_.part(Component::vae).release_pages();  // every weight is a copy
}

image::RgbImage AutoencoderTask::picture(const Example& example) {
  const auto held = held_.find(example.hash);
  if (held != held_.end()) return held->second;
  image::RgbImage picture = load_picture(example, example.buckets.back());
  if (held_bytes_ + picture.pixels.size() <= kHeldBytes) {
    held_bytes_ += picture.pixels.size();
    held_[example.hash] = picture;
  }
  return picture;
}

/// [batch, 3, crop, crop] of pictures chosen at random.
Tensor AutoencoderTask::crops(const std::vector<Example>& examples, at::Generator& random) {
  const auto factor = static_cast<int>(vae_->config().factor());
  const int side = std::max(1, options_.crop / factor) * factor;
  std::vector<Tensor> squares;
  for (int i = 0; i < options_.batch; ++i) {
    const Example& example = examples[static_cast<size_t>(between(0, static_cast<int>(examples.size()) - 1, random))];
    squares.push_back(pipeline::to_tensor(random_square(picture(example), side, random)));
  }
  return at::cat(squares).to(device_);
}

Tensor AutoencoderTask::loss_of(const Tensor& picture_B3HW, at::Generator& random, int64_t pool) const {
  const int64_t f = vae_->config().factor();
  const Tensor noise = at::randn(
      {picture_B3HW.size(0), vae_->config().latent_channels, picture_B3HW.size(2) / f, picture_B3HW.size(3) / f},
      random, at::kFloat);
  return autoencoder_loss(*vae_, picture_B3HW, noise.to(device_), pool).total();
}

Tensor AutoencoderTask::loss(int64_t index) {
  at::Generator random = generator(options_.seed, Stream::step, static_cast<uint64_t>(index));
  const Tensor pictures = crops(data_.train, random);
  const bool pool = options_.pooled > 0 && at::rand({1}, random, at::kDouble).item<double>() < options_.pooled;
  return loss_of(pictures, random, pool ? 2 : 1);
}

std::optional<double> AutoencoderTask::validation_loss() {
  if (data_.validation.empty()) return std::nullopt;
  constexpr int kBatches = 8;
  const at::NoGradGuard no_grad;
  double sum = 0;
  for (int i = 0; i < kBatches; ++i) {
    at::Generator random = generator(0, Stream::validation, static_cast<uint64_t>(i));
    sum += loss_of(crops(data_.validation, random), random, 1).item<double>();
  }
  return sum / kBatches;
}

void AutoencoderTask::save(const std::filesystem::path& path, const nlohmann::json& about) {
  save_model(path, {{Component::vae, weights_}}, bundle_, options_, about);
}

}  // namespace calotype::train
