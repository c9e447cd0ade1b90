// Prompt in, pictures out: the five steps of FLUX.1 with their memory, progress and warnings.
//
//   TextToImage flux(open_bundle({.model = "models/FLUX.1-schnell"}), {.dtype = at::kBFloat16});
//   GenerateResult result = flux.generate({.prompt = "a lighthouse at dusk", .seed = 7});
//   base::write_file("lighthouse.png", image::encode(result.pictures[0].image));
//
// One thread at a time; loaded parts are kept between calls as far as memory allows.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapters/lora_list.h"
#include "base/cancel.h"
#include "base/progress.h"
#include "flux/sampler.h"
#include "image/rgb_image.h"
#include "pipeline/memory_plan.h"
#include "pipeline/model_bundle.h"
#include "pipeline/prompt_encoder.h"
#include "vae/autoencoder.h"

namespace calotype::pipeline {

using at::Tensor;

/// What is drawn. The command line and its help are made from these fields.
struct GenerateOptions {
  std::string prompt;                ///< UTF-8, any length; what the encoders cannot take is reported
  std::string negative_prompt;       ///< used only with true_cfg above 1
  std::optional<int> width, height;  ///< pixels, default: what the model was made for, 1024 for
                                     ///< FLUX.1; rounded down to multiples of 16 (twice the
                                     ///< VAE's factor), at most 8192
  int steps = 0;                     ///< Euler steps 1 to 1000; 0 = the variant's default (schnell 4, dev 28)
  std::optional<double> guidance;    ///< 0 to 100, default 3.5; models without guidance embedding ignore it and warn
  double true_cfg = 1.0;             ///< 1 to 100; above 1 with a negative prompt: two passes a step
  std::optional<uint64_t> seed;      ///< picture i uses seed + i; absent: drawn below 2³² and reported
  int count = 1;                     ///< pictures, 1 to 64, drawn together
  int max_sequence_length = 0;       ///< T5 tokens 1 to 512; 0 = the variant's default (schnell 256, dev 512)
  flux::NoiseStream noise = flux::NoiseStream::torch;
  std::vector<adapters::LoraChoice> loras;  ///< added up; scales −10 to 10
  /// Picture to start from, cropped and scaled to the size; without a size, its shape with the area that the model was
  /// made for.
  std::shared_ptr<const image::RgbImage> start;
  /// Of the size of `start`: white is drawn anew, black stays as it is, pixel by pixel.
  std::shared_ptr<const image::RgbImage> mask;
  double strength = 0.8;  ///< above 0, at most 1: how much of the start is given up; that share of the steps is done
};

/// How it is computed.
struct RuntimeOptions {
  std::optional<at::ScalarType>
      dtype;  ///< absent: f32 for small models, bf16 for large ones where the processor has it
  at::Device device = at::kCPU;
};

struct Picture {
  image::RgbImage image;
  uint64_t seed = 0;
};

struct GenerateResult {
  std::vector<Picture> pictures;
  GenerateOptions used;        ///< with every default and rounding filled in
  std::string model, variant;  ///< names
  at::ScalarType dtype = at::kFloat;
  std::vector<std::string> warnings;  ///< what was cut, rounded or ignored
  /// Per stage: text, load (transformer and adapters), denoise (with encoding a start), decode.
  std::map<std::string, double> seconds;
  uint64_t peak_memory = 0;  ///< bytes, of the process
  std::vector<adapters::AppliedLora> loras;
};

/// Finished sampling, before decoding: what --save-latents writes and `calotype decode` reads.
struct Latents {
  Tensor latents_BChw;  ///< as the transformer leaves them
  std::vector<uint64_t> seeds;
};

struct GenerateHooks {
  base::Progress progress;
  const base::CancelToken* cancel = nullptr;
  /// A small picture of what forms, after each step; costs a small decode each.
  std::function<void(int step, const image::RgbImage& preview)> preview;
  /// Called with finished latents before they are decoded, so that a failing decode loses nothing.
  std::function<void(const Latents&)> latents;
};

/// 8 bits → [1, 3, H, W] in −1 … 1, as an autoencoder takes pictures.
Tensor to_tensor(const image::RgbImage& picture);

/// The last step alone: latents [B, C, h, w] to pictures, in tiles when memory asks for it. Errors: bad_input for
/// latents of another shape; canceled.
std::vector<image::RgbImage> decode_latents(const vae::Autoencoder& vae, const Tensor& latents_BChw,
                                            const GenerateHooks& hooks);

class TextToImage {
 public:
  TextToImage(ModelBundle bundle, RuntimeOptions options);

  const ModelBundle& bundle() const { return bundle_; }
  at::ScalarType dtype() const { return dtype_; }

  /// Checks the options and fills in defaults; `warnings` of the result say what changed. Errors: bad_input per field.
  GenerateResult checked(const GenerateOptions& options) const;
  /// Errors: bad_input; out_of_memory before loading; canceled; internal for non-finite values; errors of the files.
  GenerateResult generate(const GenerateOptions& options, const GenerateHooks& hooks = {});
  /// Encodes prompts ahead, so that the text encoders are loaded once for many.
  void encode_ahead(const std::vector<GenerateOptions>& jobs, const GenerateHooks& hooks);

 private:
  MemoryRequest memory_request(const GenerateOptions& options) const;
  flux::Conditioning encode(const std::string& prompt, const GenerateOptions& options, GenerateResult& result,
                            const GenerateHooks& hooks);
  flux::Conditioning conditioning(const std::string& prompt, const GenerateOptions& options, GenerateResult& result,
                                  const GenerateHooks& hooks);
  flux::LatentSize latent_size(const GenerateOptions& options) const;
  Tensor start_latents(const GenerateOptions& options, const GenerateHooks& hooks);
  Tensor denoise(const GenerateOptions& options, const flux::Conditioning& positive,
                 std::optional<flux::Conditioning> negative, const GenerateHooks& hooks);
  void read_loras(GenerateResult& result);
  void load_transformer(const GenerateHooks& hooks);
  void load_vae();
  weights::LoadOptions load_options() const;
  image::RgbImage preview(const Tensor& clean_BLC, flux::LatentSize size);

  ModelBundle bundle_;
  PromptEncoder encoder_;
  at::ScalarType dtype_;
  at::Device device_;
  vae::AutoencoderConfig vae_config_;
  MemoryPlan plan_;
  std::map<std::string, flux::Conditioning> encoded_;  ///< by prompt and length; small
  std::unique_ptr<flux::FluxTransformer> transformer_;
  std::unique_ptr<vae::Autoencoder> vae_;
  adapters::LoraList loras_;
};

}  // namespace calotype::pipeline
