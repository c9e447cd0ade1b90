#include "train/flow_task.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <set>
#include <utility>

#include "adapters/lora_apply.h"
#include "base/error.h"
#include "base/sha256.h"
#include "pipeline/diffusers_config.h"
#include "pipeline/processor.h"
#include "train/captions.h"
#include "train/model_files.h"
#include "weights/fingerprint.h"

namespace calotype::train {

using base::ErrorKind;
using weights::Component;

namespace {

// Noise levels at which held-out pictures are judged: early, middle and late steps of sampling count alike.
constexpr float kValidationSigmas[] = {0.9f, 0.7f, 0.5f, 0.3f, 0.1f};

/// Names what a part computes: its numbers and the settings beside them, such as the VAE's scaling factor.
std::string identity_of(const weights::TensorIndex& part) {
  return base::sha256_hex(weights::fingerprint(part) + pipeline::part_config(part).dump());
}

/// Held-out pictures are judged as they are: no chance but the fixed noise.
TrainOptions judging(TrainOptions options) {
  options.caption_dropout = 0;
  options.flip = false;
  options.latents = "mean";
  return options;
}

}  // namespace

FlowTask::FlowTask(pipeline::ModelBundle bundle, const TrainData& data, const TrainOptions& options,
                   const weights::LoadOptions& load, const pipeline::GenerateHooks& hooks)
    : options_(options),
      judging_(judging(options)),
      bundle_(std::move(bundle)),
      load_(load),
      dtype_(load.dtype),
      device_(load.device),
      vae_fingerprint_(identity_of(bundle_.part(Component::vae)) + pipeline::dtype_name(dtype_)),
      encoder_fingerprint_(identity_of(bundle_.part(Component::clip)) + identity_of(bundle_.part(Component::t5))),
      t5_tokens_(options.max_sequence_length ? options.max_sequence_length : static_cast<int>(bundle_.text_tokens)),
      encoder_(bundle_),
      latents_(work_folder(options) / "latents"),
      prompts_(work_folder(options) / "prompts") {
  std::string content = identity_of(bundle_.part(Component::transformer)) + encoder_fingerprint_;
  content += vae_fingerprint_;
  for (const Example& example : data.train) {
    content += example.hash;
    if (options_.masked) content += example.mask_hash;
    for (const std::string& caption : example.captions) content += caption + "\n";
  }
  identity_ = base::sha256_hex(content);
  if (!options_.text_encoders) cache_prompts(data, hooks);
  cache_pictures(data, hooks);
  data_.emplace(data.train, options_, vae_fingerprint_, latents_);
  if (!data.validation.empty()) validation_.emplace(data.validation, judging_, vae_fingerprint_, latents_);
  load_transformer();
}

FlowTask::~FlowTask() = default;

void FlowTask::cache_prompts(const TrainData& data, const pipeline::GenerateHooks& hooks) {
  const at::NoGradGuard no_grad;
  std::set<std::string> captions = {""};
  captions.insert(options_.sample_prompts.begin(), options_.sample_prompts.end());
  for (const auto* examples : {&data.train, &data.validation})
    for (const Example& example : *examples)
      for (const std::string& caption : example.captions) {
        captions.insert(caption);
        if (!options_.preserve.empty()) captions.insert(with_word(caption, options_.trigger, options_.preserve));
      }
  std::vector<std::string> missing;
  for (const std::string& caption : captions)
    if (!prompts_.has(prompt_key(caption))) missing.push_back(caption);
  int64_t done = 0;
  for (const std::string& caption : missing) {
    encoder_.load(load_);
    const flux::Conditioning cond = encoder_.encode({caption}, t5_tokens_);
    prompts_.put(prompt_key(caption), {{"text", cond.text_BTE[0]}, {"pooled", cond.pooled_BP[0]}});
    if (hooks.cancel) hooks.cancel->throw_if_requested();
    if (hooks.progress)
      hooks.progress({.stage = "text", .done = ++done, .total = static_cast<int64_t>(missing.size())});
  }
  prompts_.flush();
  encoder_.release();
}

std::string FlowTask::prompt_key(const std::string& caption) const {
  return base::sha256_hex(
      fmt::format("{} {} {} {}", encoder_fingerprint_, t5_tokens_, pipeline::dtype_name(dtype_), caption));
}

void FlowTask::cache_pictures(const TrainData& data, const pipeline::GenerateHooks& hooks) {
  std::optional<vae::Autoencoder> vae;
  const auto loaded = [&]() -> const vae::Autoencoder& {
    if (!vae) vae.emplace(bundle_.part(Component::vae), load_, vae::Autoencoder::Parts::both);
    return *vae;
  };
  for (const auto* examples : {&data.train, &data.validation})
    cache_latents(latents_, *examples, options_, vae_fingerprint_, loaded, hooks);
  vae.reset();
  bundle_.part(Component::vae).release_pages();
}

void FlowTask::load_transformer() {
  weights::LoadOptions load = load_;
  if (options_.mode == Mode::full) load.trained = &transformer_weights_;
  transformer_ = std::make_unique<flux::FluxTransformer>(bundle_.part(Component::transformer), load);
  if (options_.mode == Mode::full && !options_.distill_guidance.empty())
    teacher_ = std::make_unique<flux::FluxTransformer>(bundle_.part(Component::transformer),
                                                       weights::LoadOptions{.dtype = dtype_, .device = device_});
  if (options_.mode == Mode::lora) return add_adapters();
  if (options_.text_encoders) {
    weights::LoadOptions encoders = load_;
    encoders.trained = &encoder_weights_;
    encoder_.load(encoders);
  }
  add_all_weights();
}

void FlowTask::add_adapters() {
  pairs_ = new_adapters(transformer_->adapter_slots(), options_, device_);
  adapters::Adapter adapter{.pairs = pairs_, .stored = static_cast<int>(pairs_.size()), .where = "the new adapter"};
  adapters::attach(adapter, 1.0, transformer_->adapter_slots(), device_);
  for (const adapters::AdapterPair& pair : pairs_) {
    parameters_.push_back({.name = pair.stored_name + ".lora_A.weight", .value = pair.down_RI, .matrix = true});
    parameters_.push_back({.name = pair.stored_name + ".lora_B.weight", .value = pair.up_OR, .matrix = true});
  }
}

void FlowTask::add_all_weights() {
  for (const auto* weights : {&transformer_weights_, &encoder_weights_})
    for (const auto& [name, value] : *weights) parameters_.push_back(trained_weight(name, value));
  bundle_.part(Component::transformer).release_pages();  // every weight is a copy
  if (!options_.text_encoders) return;
  for (const Component encoder : {Component::clip, Component::t5}) bundle_.part(encoder).release_pages();
}

flux::Conditioning FlowTask::conditioning(const std::vector<std::string>& captions) {
  flux::Conditioning cond;
  if (options_.text_encoders) {
    cond = encoder_.encode(captions, t5_tokens_);
  } else {
    std::vector<Tensor> text, pooled;
    for (const std::string& caption : captions) {
      text.push_back(prompts_.get(prompt_key(caption), "text"));
      pooled.push_back(prompts_.get(prompt_key(caption), "pooled"));
    }
    cond.text_BTE = at::stack(text).to(device_, dtype_);
    cond.pooled_BP = at::stack(pooled).to(device_, dtype_);
  }
  cond.guidance = options_.guidance;
  return cond;
}

Noised FlowTask::noised(FlowBatch& batch) const {
  const Timesteps timesteps =
      options_.shift ? Timesteps::flux_shift : *timesteps_from_name(options_.timesteps, bundle_.schedule);
  const flux::ScheduleConfig schedule =
      options_.shift ? flux::ScheduleConfig{.shifted = false, .shift = *options_.shift} : bundle_.schedule;
  const Tensor sigma_B =
      draw_sigmas(timesteps, batch.clean_BChw.size(0), batch.size.tokens(), schedule, batch.random);
  const Tensor noise = at::randn(batch.clean_BChw.sizes(), batch.random, at::kFloat);
  return add_noise(batch.clean_BChw.to(device_), noise.to(device_), sigma_B);
}

Tensor FlowTask::predict(const Noised& noised, const flux::Conditioning& cond, flux::LatentSize size) const {
  return transformer_->forward(noised.x_BIC.to(dtype_), cond, noised.sigma_B, size);
}

Tensor FlowTask::loss(int64_t index) {
  FlowBatch batch = data_->batch(index);
  Noised sample = noised(batch);
  flux::Conditioning cond = conditioning(batch.captions);
  if (!options_.distill_guidance.empty()) {
    const double low = options_.distill_guidance[0], high = options_.distill_guidance[1];
    cond.guidance = low + (high - low) * at::rand({1}, batch.random, at::kDouble).item<double>();
    sample.velocity_BIC = guided_velocity(sample, batch, cond.guidance);
  }
  const Tensor mask = batch.mask_B1hw.defined() ? batch.mask_B1hw.to(device_) : Tensor();
  Tensor loss = flow_loss(predict(sample, cond, batch.size), sample, mask);
  if (!options_.preserve.empty()) loss = loss + options_.preserve_weight * preservation_loss(sample, batch);
  return loss;
}

/// What the model that the run began with says.
Tensor FlowTask::teacher(const Noised& sample, const flux::Conditioning& cond, flux::LatentSize size) const {
  const at::NoGradGuard no_grad;
  if (teacher_) return teacher_->forward(sample.x_BIC.to(dtype_), cond, sample.sigma_B, size).to(at::kFloat);
  const adapters::WithoutAdapters off(transformer_->adapter_slots());
  return predict(sample, cond, size).to(at::kFloat);
}

/// Classifier-free guidance of the model that the run began with.
Tensor FlowTask::guided_velocity(const Noised& sample, const FlowBatch& batch, double guidance) {
  const Tensor with_prompt = teacher(sample, conditioning(batch.captions), batch.size),
               without = teacher(sample, conditioning(std::vector<std::string>(batch.captions.size())), batch.size);
  return guided(with_prompt, without, guidance);
}

/// What the class word draws shall stay what the frozen base draws for it.
Tensor FlowTask::preservation_loss(const Noised& sample, const FlowBatch& batch) {
  std::vector<std::string> captions;
  for (const std::string& caption : batch.captions)
    captions.push_back(with_word(caption, options_.trigger, options_.preserve));
  const flux::Conditioning cond = conditioning(captions);
  Noised target = sample;
  target.velocity_BIC = teacher(sample, cond, batch.size);
  return flow_loss(predict(sample, cond, batch.size), target);
}

std::optional<double> FlowTask::validation_loss() {
  if (!validation_) return std::nullopt;
  const at::NoGradGuard no_grad;
  double sum = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < validation_->batches_per_epoch(); ++i) {
    const FlowBatch batch = validation_->batch(i);
    const flux::Conditioning cond = conditioning(batch.captions);
    at::Generator random = generator(0, Stream::validation, static_cast<uint64_t>(i));
    const Tensor noise = at::randn(batch.clean_BChw.sizes(), random, at::kFloat).to(device_);
    for (const float sigma : kValidationSigmas) {
      const Noised sample =
          add_noise(batch.clean_BChw.to(device_), noise, at::full({batch.clean_BChw.size(0)}, sigma, at::kFloat));
      sum += flow_loss(predict(sample, cond, batch.size), sample).item<double>();
      ++count;
    }
  }
  return sum / static_cast<double>(count);
}

std::vector<Preview> FlowTask::previews() {
  const at::NoGradGuard no_grad;
  std::vector<Preview> out;
  if (options_.sample_prompts.empty()) return out;
  const vae::Autoencoder vae(bundle_.part(Component::vae), {.dtype = dtype_, .device = device_});
  for (const std::string& prompt : options_.sample_prompts) out.push_back({prompt, draw(prompt, vae)});
  bundle_.part(Component::vae).release_pages();
  return out;
}

image::RgbImage FlowTask::draw(const std::string& prompt, const vae::Autoencoder& vae) {
  const auto factor = static_cast<int>(vae.config().factor());
  const Bucket largest = data_->largest();
  const int side = options_.sample_side ? options_.sample_side : std::min(512, std::max(largest.width, largest.height));
  const int64_t latent_side = std::max(1, side / (2 * factor)) * 2;
  const flux::LatentSize size{.channels = vae.config().latent_channels, .height = latent_side, .width = latent_side};
  const flux::Variant& variant = bundle_.variant();
  const Tensor start = flux::pack(flux::noise(flux::NoiseStream::torch, options_.seed, 1, size)).to(device_, dtype_);
  flux::SampleOptions sampling{.sigmas = flux::schedule(bundle_.schedule, variant.steps, size.tokens()),
                               .positive = conditioning({prompt})};
  // Until guidance is distilled, a model that learns from scratch knows no other than the one it was told.
  const bool knows_others = options_.mode == Mode::lora || !options_.distill_guidance.empty();
  sampling.positive.guidance = knows_others ? variant.guidance_scale : options_.guidance;
  const Tensor latents = flux::unpack(flux::sample(*transformer_, start, size, sampling), size);
  return pipeline::decode_latents(vae, latents, {}).front();
}

void FlowTask::save(const std::filesystem::path& path, const nlohmann::json& about) {
  const at::NoGradGuard no_grad;
  if (options_.mode == Mode::lora) return save_adapter(path, pairs_, bundle_, options_, about);
  std::map<Component, std::map<std::string, Tensor>> parts;
  parts[Component::transformer] = transformer_weights_;
  for (const auto& [name, value] : encoder_weights_)
    parts[name.starts_with("text_model.") ? Component::clip : Component::t5][name] = value;
  save_model(path, parts, bundle_, options_, about);
}

}  // namespace calotype::train
