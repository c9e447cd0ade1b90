// What a training run is made of. The command line, the JSON schema and docs/training.md are made from these fields.
//
//   TrainOptions options{.data = "photos.zip", .trigger = "TOK", .output = "tok.safetensors"};
//   check_options(options);
//
// Plain data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace calotype::train {

enum class Mode {
  lora,         ///< low-rank adapters on a frozen transformer
  full,         ///< all weights of the transformer, on request of the text encoders as well
  autoencoder,  ///< all weights of the VAE
};

struct TrainOptions {
  std::filesystem::path data;    ///< zip, tar or folder of pictures with captions
  std::filesystem::path output;  ///< lora: a .safetensors file; else a folder. Work files go to OUTPUT.train
  Mode mode = Mode::lora;
  std::string trigger;  ///< word that will stand for what is learned; put in front of captions that lack it
  int steps = 1000;     ///< optimiser steps, 1 to 10,000,000
  uint64_t seed = 1;    ///< of everything random; the same seed gives the same weights on the same machine

  // What is trained
  int rank = 16;                ///< of adapters, 1 to 1024
  std::optional<double> alpha;  ///< adapters count alpha/rank; absent: the rank
  std::string layers;           ///< regular expression on diffusers' layer names; empty: all linear layers of blocks
  bool text_encoders = false;   ///< full: train CLIP and T5 as well

  // Optimiser
  std::string optimizer = "adamw";      ///< adamw, adamw8bit, prodigy, muon
  std::optional<double> learning_rate;  ///< absent: 4e-4 for lora, 1e-4 for full, 1e-3 for autoencoder, 1 for prodigy
  double muon_learning_rate = 0.02;     ///< of the matrices that muon handles
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6, weight_decay = 0.01;
  std::string schedule = "constant";  ///< constant, cosine, linear
  int warmup = 0;                     ///< steps from 0 to the learning rate
  double decay = 1.0;                 ///< cosine and linear: the last part of the run that decays, 0 to 1
  int batch = 1;                      ///< pictures per step, 1 to 4096
  int accumulate = 1;                 ///< batches whose gradients are averaged into one step
  double clip = 1.0;                  ///< largest norm of the gradient, 0: no limit
  double ema = 0.99;                  ///< running average that is saved and previewed, 0: none

  // Objective
  std::string timesteps = "auto";     ///< auto, sigmoid, flux-shift, uniform
  std::optional<double> shift;        ///< flux-shift: how far towards noise; absent: as the model samples such pictures
  double guidance = 1.0;              ///< what models with guidance are told while they learn
  /// Two numbers, low and high: the model learns to draw in one pass, told a guidance g from this range, what the model
  /// it begins with draws with classifier-free guidance g in two (Meng et al. 2210.03142). Empty: off.
  std::vector<double> distill_guidance;
  double caption_dropout = 0.05;   ///< share of samples that learn the empty prompt
  std::string latents = "sample";  ///< sample or mean of the VAE's posterior
  bool masked = false;             ///< weigh the loss by the data's masks
  std::string preserve;            ///< class word: what it draws stays as it was (differential output preservation)
  double preserve_weight = 1.0;

  // Pictures
  std::vector<int> resolutions;  ///< pictures have at most r² pixels for each r, and are never enlarged; empty: what
                                 ///< the model was made for, 512, 768 and 1024 for FLUX.1
  bool flip = false;            ///< half of the samples are mirrored
  bool caption_lines = false;   ///< each line of a caption file is an alternative caption
  std::string default_caption;  ///< for pictures without caption file
  int max_sequence_length = 0;  ///< T5 tokens; 0: the variant's default
  int crop = 64;                ///< autoencoder: side of the squares it learns from, pixels
  double pooled = 0;            ///< autoencoder: share of steps that decode latents averaged 2 × 2

  // Watching
  int checkpoint_every = 100;             ///< steps between checkpoints, 0: only at the end and on Ctrl-C
  std::filesystem::path validation_data;  ///< pictures that are never trained on
  double validation_split = 0;            ///< share of the data held out, 0 to 0.5
  int validate_every = 100;
  std::vector<std::string> sample_prompts;  ///< drawn with what was learned so far
  int sample_every = 250;
  int sample_side = 0;  ///< pixels; 0: that of the largest bucket, at most 512

  // Computing
  std::optional<bool> recompute;  ///< blocks are computed again in the backward pass; absent: when memory asks for it
  std::string save_type;          ///< f32, bf16 or f16: numbers in the output; "": f16 for adapters, bf16 for models
  bool tar = false;               ///< lora: also OUTPUT.tar, laid out as hosted trainers return it
  bool restart = false;           ///< forget the checkpoints of an earlier run
};

/// Errors: bad_input for each field out of range, not_found for data that is not there, conflict for an output folder
/// that holds something else; all before anything is loaded.
void check_options(const TrainOptions& options);

double learning_rate_of(const TrainOptions& options);
double alpha_of(const TrainOptions& options);

/// A file of every trained model's folder: only a folder with it, or an empty one, is replaced by another model.
constexpr const char* kTrainedMark = "training.json";

/// OUTPUT.train: checkpoints, cached latents and prompts, log, report, previews.
std::filesystem::path work_folder(const TrainOptions& options);

/// The output with the lowest validation loss: OUTPUT's name with ".best" in it.
std::filesystem::path best_path(const TrainOptions& options);

/// The fields that a checkpoint depends on, as one line of JSON: a run is resumed only with the same ones.
std::string settings_text(const TrainOptions& options);

}  // namespace calotype::train
