// Trains the VAE: random squares of pictures through encoder and decoder, compared by value and by edge.
//
//   AutoencoderTask task(bundle, {.train = pictures, .validation = held_out}, options, runtime);
//
// Loss = L1 + ½ · (L1 of horizontal + vertical differences) + 3e-4 · KL, pictures in −1 … 1. Sources: Rombach et al.
// 2112.10752 (KL-regularised autoencoders), without its perceptual and adversarial terms. One thread at a time.
#pragma once

#include <memory>

#include "pipeline/text_to_image.h"
#include "train/flow_task.h"
#include "vae/autoencoder.h"

namespace calotype::train {

struct AutoencoderLoss {
  Tensor l1, edges, kl;  ///< scalars, f32
  Tensor total() const;
};
/// picture [B, 3, H, W] f32; `noise` [B, C, h, w] moves the posterior's mean to a sample of it. With `pool` above 1 the
/// average of each pool × pool latents is decoded and compared with the picture made as much smaller: latents of a
/// smaller picture then resemble smaller latents, which the transformer learns sooner (Kouzelis et al. 2502.09509).
AutoencoderLoss autoencoder_loss(const vae::Autoencoder& vae, const Tensor& picture_B3HW, const Tensor& noise_BChw,
                                 int64_t pool = 1);

class AutoencoderTask : public TrainTask {
 public:
  AutoencoderTask(pipeline::ModelBundle bundle, TrainData data, const TrainOptions& options,
                  const pipeline::RuntimeOptions& runtime);

  const Parameters& parameters() const override { return parameters_; }
  Tensor loss(int64_t index) override;
  std::optional<double> validation_loss() override;
  std::vector<Preview> previews() override { return {}; }
  void save(const std::filesystem::path& path, const nlohmann::json& about) override;
  std::string identity() const override { return identity_; }

 private:
  image::RgbImage picture(const Example& example);
  Tensor crops(const std::vector<Example>& examples, at::Generator& random);
  Tensor loss_of(const Tensor& picture_B3HW, at::Generator& random, int64_t pool) const;

  const TrainOptions& options_;
  pipeline::ModelBundle bundle_;
  TrainData data_;
  at::ScalarType dtype_;
  at::Device device_;
  std::map<std::string, Tensor> weights_;
  std::unique_ptr<vae::Autoencoder> vae_;
  Parameters parameters_;
  std::string identity_;
  std::map<std::string, image::RgbImage> held_;  ///< by the picture's hash, as many as fit
  size_t held_bytes_ = 0;
};

}  // namespace calotype::train
