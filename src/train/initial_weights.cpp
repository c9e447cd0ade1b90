#include "train/initial_weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "files/shard_index.h"
#include "files/tensor_file.h"
#include "flux/flux_transformer.h"
#include "pipeline/diffusers_config.h"
#include "pipeline/memory_plan.h"
#include "text/clip_encoder.h"
#include "text/t5_encoder.h"
#include "train/flow_loss.h"
#include "train/model_files.h"
#include "vae/autoencoder.h"
#include "weights/tensor_writer.h"

namespace calotype::train {
namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;
using weights::Component;
using weights::Scope;

namespace {

constexpr Component kComponents[] = {Component::transformer, Component::vae, Component::clip, Component::t5};

// Beyond every published model; the product of a model's sizes is checked against memory before anything is made.
constexpr int64_t kMostLayers = 1000, kMostTokens = 1'000'000, kWidest = 100'000;

/// A configuration that is read for its sizes; every one must be there.
struct Sizes {
  const json& config;
  std::string where;

  template <typename T>
  T value(const char* key, const T& fallback) const {
    try {
      return config.value(key, fallback);
    } catch (const json::exception&) {
      base::fail(ErrorKind::corrupt_file, "{}: {} is {}, expected something like {}", where, key,
                 base::printable(config[key].dump()), json(fallback).dump());
    }
  }

  int64_t operator()(const char* key, int64_t most = kWidest) const {
    const json found = config.contains(key) ? config[key] : json();
    base::check(found.is_number_integer() && found > 0 && found <= most, ErrorKind::corrupt_file,
                "{}: {} is {}, expected a size of 1 to {}", where, key,
                config.contains(key) ? base::printable(found.dump()) : "missing", most);
    return found.get<int64_t>();
  }
  int layers(const char* key) const { return static_cast<int>((*this)(key, kMostLayers)); }

  void check(bool fits, std::string_view what) const {
    base::check(fits, ErrorKind::corrupt_file, "{}: its sizes contradict each other, expected {}", where, what);
  }
};

flux::TransformerConfig transformer_sizes(const Sizes& size) {
  flux::TransformerConfig c;
  c.head_width = size("attention_head_dim", 512);
  c.width = c.head_width * size("num_attention_heads", kWidest / c.head_width);
  c.mlp_width = 4 * c.width;
  c.in_channels = c.out_channels = size("in_channels");
  c.text_width = size("joint_attention_dim");
  c.pooled_width = size("pooled_projection_dim");
  c.double_blocks = size.layers("num_layers");
  c.single_blocks = size.layers("num_single_layers");
  c.guidance = size.value("guidance_embeds", false);
  c.axes = size.value("axes_dims_rope", flux::default_axes(c.head_width));
  const bool even = std::ranges::all_of(c.axes, [](int64_t axis) { return axis >= 0 && axis % 2 == 0; });
  size.check(c.head_width % 2 == 0, "an even attention_head_dim");
  size.check(c.axes.size() == 3 && even && std::accumulate(c.axes.begin(), c.axes.end(), 0.0) == c.head_width,
             "axes_dims_rope to be three even numbers with the sum attention_head_dim");
  size.check(c.in_channels % 4 == 0, "in_channels to be a multiple of 4");
  return c;
}

vae::AutoencoderConfig vae_sizes(const Sizes& size) {
  vae::AutoencoderConfig c;
  c.encoder_channels = c.decoder_channels = size.value("block_out_channels", std::vector<int64_t>{});
  c.latent_channels = size("latent_channels");
  c.encoder_blocks = size.layers("layers_per_block");
  c.decoder_blocks = c.encoder_blocks + 1;
  c.groups = size("norm_num_groups");
  const auto& channels = c.encoder_channels;
  size.check(!channels.empty() && channels.size() <= 8 &&
                 std::ranges::all_of(
                     channels, [&](int64_t count) { return count > 0 && count <= kWidest && count % c.groups == 0; }),
             "block_out_channels to be 1 to 8 multiples of norm_num_groups");
  return c;
}

text::ClipConfig clip_sizes(const Sizes& size) {
  text::ClipConfig c;
  c.vocabulary = size("vocab_size", kMostTokens);
  c.positions = size("max_position_embeddings");
  c.width = size("hidden_size");
  c.mlp_width = size("intermediate_size");
  c.heads = size("num_attention_heads");
  c.layers = size.layers("num_hidden_layers");
  size.check(c.width % c.heads == 0, "hidden_size to be a multiple of num_attention_heads");
  return c;
}

text::T5Config t5_sizes(const Sizes& size) {
  text::T5Config c;
  c.vocabulary = size("vocab_size", kMostTokens);
  c.width = size("d_model");
  c.heads = size("num_heads");
  c.inner_width = c.heads * size("d_kv", kWidest / c.heads);
  c.mlp_width = size("d_ff");
  c.buckets = size("relative_attention_num_buckets");
  c.layers = size.layers("num_layers");
  const bool gated = size.value("feed_forward_proj", std::string("gated-gelu")).starts_with("gated");
  c.gated = size.value("is_gated_act", gated);
  return c;
}

using Shapes = std::map<std::string, std::vector<int64_t>>;

/// Names and shapes of a part, found by building it without weights.
Shapes shapes_of(Component component, const Sizes& size) {
  const weights::TensorIndex empty{.component = component};
  const Scope scope(empty, {.device = at::kMeta});
  switch (component) {
    case Component::transformer: flux::FluxTransformer(transformer_sizes(size), scope); break;
    case Component::vae: vae::Autoencoder(vae_sizes(size), scope, vae::Autoencoder::Parts::both); break;
    case Component::clip: text::ClipEncoder(clip_sizes(size), scope); break;
    case Component::t5: text::T5Encoder(t5_sizes(size), scope); break;
  }
  Shapes shapes = scope.asked();
  for (auto& [name, shape] : shapes)
    if (name.find(".attn_1.") != std::string::npos && shape.size() == 4) shape.resize(2);  // matrices in diffusers' VAE
  return shapes;
}

/// A part is made in memory before it is written.
void check_memory(const Shapes& shapes, const std::string& where) {
  double numbers = 0;  // within the limits of the sizes no single tensor is beyond 64 bits, but their sum may be
  for (const auto& [name, shape] : shapes) numbers += static_cast<double>(*files::element_count(shape));
  const uint64_t available = pipeline::available_memory(at::kCPU);
  base::check(4 * numbers < static_cast<double>(available), ErrorKind::out_of_memory,
              "{}: describes {:.0f} million numbers, which take {:.0f} GB while {} are free; choose smaller sizes",
              where, numbers / 1e6, 4 * numbers / 1e9, pipeline::bytes_text(available));
}

/// What one part hands to another must have the size that the other expects; parts that are there already are left to
/// whoever opens the model.
void check_together(const fs::path& model, const std::map<Component, Shapes>& parts) {
  const auto columns = [&](Component part, const char* tensor) -> int64_t {
    return parts.contains(part) ? parts.at(part).at(tensor).at(1) : 0;
  };
  const auto check = [&](int64_t takes, const char* key, int64_t gives, std::string_view what) {
    base::check(!takes || !gives || takes == gives, ErrorKind::corrupt_file,
                "{}: transformer/config.json: {} is {}, but {} is {}; make them fit", model.string(), key, takes, what,
                gives);
  };
  check(columns(Component::transformer, "txt_in.weight"), "joint_attention_dim",
        columns(Component::t5, "shared.weight"), "d_model of text_encoder_2");
  check(columns(Component::transformer, "vector_in.in_layer.weight"), "pooled_projection_dim",
        columns(Component::clip, "text_model.embeddings.token_embedding.weight"), "hidden_size of text_encoder");
  check(columns(Component::transformer, "img_in.weight"), "in_channels",
        4 * columns(Component::vae, "decoder.conv_in.weight"), "four times latent_channels of vae");
}

bool begins_at_zero(const std::string& name) {
  return name.ends_with(".bias") || name.find("_mod.lin.") != std::string::npos ||
         name.find("modulation.lin.") != std::string::npos || name.starts_with("final_layer.");
}

/// T5's positions [buckets, heads]: each head begins by looking at its left or right neighbours, every other pair of
/// heads further away, as ALiBi's slopes do (Press et al. 2108.12409). From zero a small encoder takes long to find the
/// order of words, and a picture gets its colours from whose neighbour a colour word is. Buckets: transformers
/// T5Attention._relative_position_bucket, the first half for what stands before.
at::Tensor neighbour_bias(int64_t buckets, int64_t heads) {
  const at::Tensor bias = at::zeros({buckets, heads}, at::kFloat);
  if (buckets < 2) return bias;
  auto value = bias.accessor<float, 2>();
  constexpr float kOtherSide = -4;
  for (int64_t head = 0; head < heads; ++head) {
    const float slope = std::exp2(1 - static_cast<float>(head / 2));
    for (int64_t bucket = 0; bucket < buckets; ++bucket) {
      const int64_t distance = bucket % (buckets / 2);
      const bool looked_at = distance > 0 && (bucket >= buckets / 2) == (head % 2 == 0);
      value[bucket][head] = (looked_at ? slope : kOtherSide) - slope * static_cast<float>(distance);
    }
  }
  return bias;
}

at::Tensor initial(const std::string& name, const std::vector<int64_t>& shape, at::Generator& random) {
  const at::Tensor value = at::zeros(shape, at::TensorOptions().dtype(at::kFloat));
  if (begins_at_zero(name)) return value;
  if (shape.size() == 1) return value.fill_(1);
  if (name == "shared.weight") return value.normal_(0, 1, random);
  if (name.find("relative_attention_bias") != std::string::npos) return neighbour_bias(shape[0], shape[1]);
  if (name.find("embedding") != std::string::npos) return value.normal_(0, 0.02, random);
  int64_t in = 1;
  for (size_t i = 1; i < shape.size(); ++i) in *= shape[i];
  const double bound =
      shape.size() == 2 ? std::sqrt(6.0 / static_cast<double>(in + shape[0])) : 1 / std::sqrt(static_cast<double>(in));
  return value.uniform_(-bound, bound, random);
}

/// T5 does not divide its scores by the root of the head width: its queries begin that much smaller.
double query_scale(const std::string& name, const Shapes& shapes) {
  if (!name.ends_with(".SelfAttention.q.weight")) return 1;
  const int64_t heads = shapes.at("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight").at(1);
  return 1 / std::sqrt(static_cast<double>(shapes.at(name).at(0) / heads));
}

bool lacks_weights(const fs::path& model, Component component) {
  const fs::path folder = model / pipeline::diffusers_folder(component);
  if (!fs::exists(folder / "config.json")) return false;
  for (const auto& entry : fs::directory_iterator(folder))
    if (holds_weights(entry.path())) return false;
  return true;
}

}  // namespace

bool lacks_weights(const fs::path& model) {
  if (!fs::exists(model / "model_index.json")) return false;
  for (const Component component : kComponents)
    if (lacks_weights(model, component)) return true;
  return false;
}

fs::path with_initial_weights(const fs::path& model, const fs::path& target, uint64_t seed) {
  std::map<Component, Shapes> missing;
  for (const Component component : kComponents) {
    if (!lacks_weights(model, component)) continue;
    const fs::path file = model / pipeline::diffusers_folder(component) / "config.json";
    const json config = files::read_json_object(file);
    missing[component] = shapes_of(component, {config, file.string()});
    check_memory(missing[component], file.string());
  }
  check_together(model, missing);
  fs::remove_all(target);
  link_copy(model, target);
  for (const auto& [component, shapes] : missing) {
    at::Generator random = generator(seed, Stream::initial, static_cast<uint64_t>(component));
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [name, shape] : shapes)
      tensors[name] = initial(name, shape, random).mul_(query_scale(name, shapes));
    weights::write_tensors(target / pipeline::diffusers_folder(component) / "initial.safetensors", tensors);
  }
  return target;
}

}  // namespace calotype::train
