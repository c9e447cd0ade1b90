#include "train/initial_weights.h"

#include <ATen/ATen.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "files/shard_index.h"
#include "flux/flux_transformer.h"
#include "pipeline/diffusers_config.h"
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

/// A configuration that is read for its sizes; every one must be there.
struct Sizes {
  const json& config;
  std::string where;

  int64_t operator()(const char* key) const {
    base::check(config.contains(key) && config[key].is_number_integer() && config[key].get<int64_t>() > 0 &&
                    config[key].get<int64_t>() < 1'000'000,
                ErrorKind::corrupt_file, "{}: {} is {}, expected a size", where, key,
                config.contains(key) ? config[key].dump() : "missing");
    return config[key].get<int64_t>();
  }
};

flux::TransformerConfig transformer_sizes(const Sizes& size) {
  flux::TransformerConfig c;
  c.head_width = size("attention_head_dim");
  c.width = c.head_width * size("num_attention_heads");
  c.mlp_width = 4 * c.width;
  c.in_channels = c.out_channels = size("in_channels");
  c.text_width = size("joint_attention_dim");
  c.pooled_width = size("pooled_projection_dim");
  c.double_blocks = static_cast<int>(size("num_layers"));
  c.single_blocks = static_cast<int>(size("num_single_layers"));
  c.guidance = size.config.value("guidance_embeds", false);
  c.axes = size.config.value("axes_dims_rope", flux::default_axes(c.head_width));
  return c;
}

vae::AutoencoderConfig vae_sizes(const Sizes& size) {
  vae::AutoencoderConfig c;
  c.encoder_channels = c.decoder_channels = size.config.value("block_out_channels", std::vector<int64_t>{});
  base::check(!c.encoder_channels.empty(), ErrorKind::corrupt_file, "{}: block_out_channels is missing", size.where);
  c.latent_channels = size("latent_channels");
  c.encoder_blocks = static_cast<int>(size("layers_per_block"));
  c.decoder_blocks = c.encoder_blocks + 1;
  c.groups = size("norm_num_groups");
  return c;
}

text::ClipConfig clip_sizes(const Sizes& size) {
  text::ClipConfig c;
  c.vocabulary = size("vocab_size");
  c.positions = size("max_position_embeddings");
  c.width = size("hidden_size");
  c.mlp_width = size("intermediate_size");
  c.heads = size("num_attention_heads");
  c.layers = static_cast<int>(size("num_hidden_layers"));
  return c;
}

text::T5Config t5_sizes(const Sizes& size) {
  text::T5Config c;
  c.vocabulary = size("vocab_size");
  c.width = size("d_model");
  c.heads = size("num_heads");
  c.inner_width = c.heads * size("d_kv");
  c.mlp_width = size("d_ff");
  c.buckets = size("relative_attention_num_buckets");
  c.layers = static_cast<int>(size("num_layers"));
  c.gated = size.config.value("feed_forward_proj", std::string("gated-gelu")).starts_with("gated");
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
  return scope.asked();
}

bool begins_at_zero(const std::string& name) {
  return name.ends_with(".bias") || name.find("_mod.lin.") != std::string::npos ||
         name.find("modulation.lin.") != std::string::npos || name.starts_with("final_layer.");
}

at::Tensor initial(const std::string& name, const std::vector<int64_t>& shape, at::Generator& random) {
  const at::Tensor value = at::zeros(shape, at::TensorOptions().dtype(at::kFloat));
  if (begins_at_zero(name)) return value;
  if (shape.size() == 1) return value.fill_(1);
  if (name == "shared.weight") return value.normal_(0, 1, random);
  if (name.find("embedding") != std::string::npos || name.find("relative_attention_bias") != std::string::npos)
    return value.normal_(0, 0.02, random);
  int64_t in = 1;
  for (size_t i = 1; i < shape.size(); ++i) in *= shape[i];
  const double bound =
      shape.size() == 2 ? std::sqrt(6.0 / static_cast<double>(in + shape[0])) : 1 / std::sqrt(static_cast<double>(in));
  return value.uniform_(-bound, bound, random);
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
  fs::remove_all(target);
  link_copy(model, target);
  for (const Component component : kComponents) {
    if (!lacks_weights(target, component)) continue;
    const fs::path folder = target / pipeline::diffusers_folder(component);
    const json config = files::read_json_object(folder / "config.json");
    at::Generator random = generator(seed, Stream::initial, static_cast<uint64_t>(component));
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [name, shape] : shapes_of(component, {config, (folder / "config.json").string()}))
      tensors[name] = initial(name, shape, random);
    weights::write_tensors(folder / "initial.safetensors", tensors);
  }
  return target;
}

}  // namespace calotype::train
