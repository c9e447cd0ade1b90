// Trains the transformer to undo noise: through low-rank adapters on frozen weights, or all its weights and, if asked,
// the text encoders'. It calls the very transformer, VAE, text encoders and sampler of generation.
//
//   FlowTask task(bundle, {.train = pictures, .validation = held_out}, options,
//                 training_load_options(bundle, options, runtime, bucket), hooks);
//
// Making one encodes pictures and prompts (through caches on disk), frees VAE and text encoders, and loads the
// transformer. One thread at a time.
#pragma once

#include <memory>
#include <optional>

#include "adapters/lora_file.h"
#include "pipeline/prompt_encoder.h"
#include "pipeline/text_to_image.h"
#include "train/flow_data.h"
#include "train/flow_loss.h"
#include "train/train_task.h"

namespace calotype::train {

struct TrainData {
  std::vector<Example> train, validation;
};

class FlowTask : public TrainTask {
 public:
  FlowTask(pipeline::ModelBundle bundle, const TrainData& data, const TrainOptions& options,
           const weights::LoadOptions& load, const pipeline::GenerateHooks& hooks);
  ~FlowTask() override;

  const Parameters& parameters() const override { return parameters_; }
  Tensor loss(int64_t index) override;
  std::optional<double> validation_loss() override;
  std::vector<Preview> previews() override;
  void save(const std::filesystem::path& path, const nlohmann::json& about) override;
  std::string identity() const override { return identity_; }

 private:
  std::string prompt_key(const std::string& caption) const;
  void cache_prompts(const TrainData& data, const pipeline::GenerateHooks& hooks);
  void cache_pictures(const TrainData& data, const pipeline::GenerateHooks& hooks);
  void load_transformer();
  void add_adapters();
  void add_all_weights();
  flux::Conditioning conditioning(const std::vector<std::string>& captions);
  Noised noised(FlowBatch& batch) const;
  Tensor predict(const Noised& noised, const flux::Conditioning& cond, flux::LatentSize size) const;
  Tensor preservation_loss(const Noised& noised, const FlowBatch& batch);
  Tensor teacher(const Noised& noised, const flux::Conditioning& cond, flux::LatentSize size) const;
  Tensor guided_velocity(const Noised& noised, const FlowBatch& batch, double guidance);
  image::RgbImage draw(const std::string& prompt, const vae::Autoencoder& vae);

  const TrainOptions& options_;
  const TrainOptions judging_;
  pipeline::ModelBundle bundle_;
  weights::LoadOptions load_;
  at::ScalarType dtype_;
  at::Device device_;
  std::string vae_fingerprint_, encoder_fingerprint_, identity_;
  int t5_tokens_;
  pipeline::PromptEncoder encoder_;
  TensorCache latents_, prompts_;
  std::unique_ptr<flux::FluxTransformer> transformer_;
  std::unique_ptr<flux::FluxTransformer> teacher_;  ///< full mode with distillation: the model that the run began with
  std::map<std::string, Tensor> transformer_weights_, encoder_weights_;  ///< trained in full mode
  std::vector<adapters::AdapterPair> pairs_;                             ///< trained in lora mode
  Parameters parameters_;
  std::optional<FlowData> data_, validation_;
};

}  // namespace calotype::train
