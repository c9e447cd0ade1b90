#include "pipeline/diffusers_config.h"

#include "base/error.h"
#include "flux/variant.h"
#include "text/clip_encoder.h"
#include "text/t5_encoder.h"
#include "vae/autoencoder.h"

namespace calotype::pipeline {

using base::ErrorKind;
using nlohmann::json;
using weights::Component;
using weights::TensorIndex;

namespace {

/// A whole number that came with the part, for what our own computation does not need.
int64_t stored_number(const TensorIndex& index, const char* key, int64_t fallback) {
  if (!index.config.is_object() || !index.config.contains(key)) return fallback;
  const json& value = index.config[key];
  return value.is_number_integer() ? value.get<int64_t>() : fallback;
}

json transformer_config(const TensorIndex& index) {
  const flux::TransformerConfig c = flux::transformer_config(index);
  return {{"_class_name", "FluxTransformer2DModel"},
          {"attention_head_dim", c.head_width},
          {"axes_dims_rope", c.axes},
          {"guidance_embeds", c.guidance},
          {"in_channels", c.in_channels},
          {"joint_attention_dim", c.text_width},
          {"num_attention_heads", c.heads()},
          {"num_layers", c.double_blocks},
          {"num_single_layers", c.single_blocks},
          {"out_channels", c.out_channels == c.in_channels ? json() : json(c.out_channels)},
          {"patch_size", 1},
          {"pooled_projection_dim", c.pooled_width}};
}

json vae_config(const TensorIndex& index) {
  const vae::AutoencoderConfig c = vae::autoencoder_config(index);
  const bool decoder = !c.decoder_channels.empty();
  const std::vector<int64_t>& channels = decoder ? c.decoder_channels : c.encoder_channels;
  const std::vector<std::string> down(channels.size(), "DownEncoderBlock2D"), up(channels.size(), "UpDecoderBlock2D");
  return {
      {"_class_name", "AutoencoderKL"},
      {"act_fn", "silu"},
      {"block_out_channels", channels},
      {"down_block_types", down},
      {"force_upcast", true},
      {"in_channels", 3},
      {"latent_channels", c.latent_channels},
      {"latents_mean", nullptr},
      {"latents_std", nullptr},
      {"layers_per_block", c.encoder_channels.empty() ? c.decoder_blocks - 1 : c.encoder_blocks},
      {"mid_block_add_attention", index.has("decoder.mid.attn_1.q.weight") || index.has("encoder.mid.attn_1.q.weight")},
      {"norm_num_groups", c.groups},
      {"out_channels", 3},
      {"sample_size", stored_number(index, "sample_size", 1024)},
      {"scaling_factor", c.scaling},
      {"shift_factor", c.shift},
      {"up_block_types", up},
      {"use_post_quant_conv", index.has("post_quant_conv.weight")},
      {"use_quant_conv", index.has("quant_conv.weight")}};
}

json clip_config(const TensorIndex& index) {
  const text::ClipConfig c = text::clip_config(index);
  // 0 and 1 are what the published FLUX.1 models say, beside an eos of 2; none of the three is a token of CLIP's.
  return {{"architectures", {"CLIPTextModel"}},
          {"attention_dropout", 0.0},
          {"bos_token_id", stored_number(index, "bos_token_id", 0)},
          {"eos_token_id", c.eos},
          {"hidden_act", c.activation == text::ClipConfig::Activation::gelu ? "gelu" : "quick_gelu"},
          {"hidden_size", c.width},
          {"intermediate_size", c.mlp_width},
          {"layer_norm_eps", c.epsilon},
          {"max_position_embeddings", c.positions},
          {"model_type", "clip_text_model"},
          {"num_attention_heads", c.heads},
          {"num_hidden_layers", c.layers},
          {"pad_token_id", stored_number(index, "pad_token_id", 1)},
          {"projection_dim", stored_number(index, "projection_dim", c.width)},
          {"vocab_size", c.vocabulary}};
}

json t5_config(const TensorIndex& index) {
  const text::T5Config c = text::t5_config(index);
  return {{"architectures", {"T5EncoderModel"}},
          {"d_ff", c.mlp_width},
          {"d_kv", c.inner_width / c.heads},
          {"d_model", c.width},
          {"dense_act_fn", c.gated ? "gelu_new" : "relu"},
          {"dropout_rate", 0.1},
          {"eos_token_id", stored_number(index, "eos_token_id", 1)},
          {"feed_forward_proj", c.gated ? "gated-gelu" : "relu"},
          {"is_encoder_decoder", false},
          {"is_gated_act", c.gated},
          {"layer_norm_epsilon", c.epsilon},
          {"model_type", "t5"},
          {"num_decoder_layers", c.layers},
          {"num_heads", c.heads},
          {"num_layers", c.layers},
          {"pad_token_id", stored_number(index, "pad_token_id", 0)},
          {"relative_attention_max_distance", c.max_distance},
          {"relative_attention_num_buckets", c.buckets},
          {"tie_word_embeddings", true},
          {"use_cache", false},
          {"vocab_size", c.vocabulary}};
}

/// Settings of the scheduler are whole numbers where they count tokens; we keep all of them as double.
json whole_if_possible(double value) {
  const auto whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? json(whole) : json(value);
}

}  // namespace

json part_config(const TensorIndex& index) {
  switch (index.component) {
    case Component::transformer: return transformer_config(index);
    case Component::vae: return vae_config(index);
    case Component::clip: return clip_config(index);
    case Component::t5: return t5_config(index);
  }
  return {};
}

void check_fits_diffusers(const TensorIndex& index) {
  const auto fits = [&](bool condition, std::string_view fixed, const std::string& found) {
    base::check(condition, ErrorKind::unsupported, "{}: diffusers has {}, this {} has {}; use --layout bfl",
                index.where(), fixed, weights::name(index.component), found);
  };
  if (index.component == Component::transformer) {
    const flux::TransformerConfig c = flux::transformer_config(index);
    fits(c.mlp_width == 4 * c.width, "MLPs four times as wide as the model",
         fmt::format("{} for {}", c.mlp_width, c.width));
    fits(c.time_width == 256, "a time embedding of 256 numbers", fmt::to_string(c.time_width));
  }
  if (index.component == Component::vae) {
    const vae::AutoencoderConfig c = vae::autoencoder_config(index);
    if (c.encoder_channels.empty() || c.decoder_channels.empty()) return;
    fits(c.encoder_channels == c.decoder_channels, "as many channels in the encoder as in the decoder",
         fmt::format("{} and {}", files::shape_text(c.encoder_channels), files::shape_text(c.decoder_channels)));
    fits(c.decoder_blocks == c.encoder_blocks + 1, "one block more in each level of the decoder",
         fmt::format("{} and {}", c.encoder_blocks, c.decoder_blocks));
  }
}

json scheduler_config(const flux::ScheduleConfig& schedule) {
  return {{"_class_name", "FlowMatchEulerDiscreteScheduler"},
          {"base_image_seq_len", whole_if_possible(schedule.base_tokens)},
          {"base_shift", schedule.base_shift},
          {"max_image_seq_len", whole_if_possible(schedule.max_tokens)},
          {"max_shift", schedule.max_shift},
          {"num_train_timesteps", 1000},
          {"shift", schedule.shift},
          {"use_dynamic_shifting", schedule.shifted}};
}

json model_index(const std::set<Component>& parts) {
  const json absent = {nullptr, nullptr};
  const auto entry = [&](Component component, const char* library, const char* type) {
    return parts.contains(component) ? json{library, type} : absent;
  };
  // The "Fast" names exist in transformers 4, where only they read a tokenizer.json, and in 5, where they are aliases.
  return {{"_class_name", "FluxPipeline"},
          {"feature_extractor", absent},
          {"image_encoder", absent},
          {"scheduler", {"diffusers", "FlowMatchEulerDiscreteScheduler"}},
          {"text_encoder", entry(Component::clip, "transformers", "CLIPTextModel")},
          {"text_encoder_2", entry(Component::t5, "transformers", "T5EncoderModel")},
          {"tokenizer", entry(Component::clip, "transformers", "CLIPTokenizerFast")},
          {"tokenizer_2", entry(Component::t5, "transformers", "T5TokenizerFast")},
          {"transformer", entry(Component::transformer, "diffusers", "FluxTransformer2DModel")},
          {"vae", entry(Component::vae, "diffusers", "AutoencoderKL")}};
}

json tokenizer_config(Component component, int64_t positions) {
  if (component == Component::t5)
    return {{"eos_token", "</s>"},
            {"model_max_length", positions},
            {"pad_token", "<pad>"},
            {"tokenizer_class", "T5Tokenizer"},
            {"unk_token", "<unk>"}};
  return {{"bos_token", "<|startoftext|>"}, {"eos_token", "<|endoftext|>"},       {"model_max_length", positions},
          {"pad_token", "<|endoftext|>"},   {"tokenizer_class", "CLIPTokenizer"}, {"unk_token", "<|endoftext|>"}};
}

std::string_view diffusers_folder(Component component) {
  switch (component) {
    case Component::transformer: return "transformer";
    case Component::vae: return "vae";
    case Component::clip: return "text_encoder";
    case Component::t5: return "text_encoder_2";
  }
  return "";
}

}  // namespace calotype::pipeline
