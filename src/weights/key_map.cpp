#include "weights/key_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <span>

namespace calotype::weights {
namespace {

// One layer in two layouts, without its last word (weight, bias, scale). "*" stands for a number, the same on both
// sides.
struct Rule {
  std::string_view ours, theirs;
  int part = 0, parts = 1;
  bool swapped = false;
};

constexpr Rule kTransformer[] = {
    {"img_in", "x_embedder"},
    {"txt_in", "context_embedder"},
    {"time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"},
    {"time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"},
    {"vector_in.in_layer", "time_text_embed.text_embedder.linear_1"},
    {"vector_in.out_layer", "time_text_embed.text_embedder.linear_2"},
    {"guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"},
    {"guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"},
    {"double_blocks.*.img_mod.lin", "transformer_blocks.*.norm1.linear"},
    {"double_blocks.*.txt_mod.lin", "transformer_blocks.*.norm1_context.linear"},
    {"double_blocks.*.img_attn.qkv", "transformer_blocks.*.attn.to_q", 0, 3},
    {"double_blocks.*.img_attn.qkv", "transformer_blocks.*.attn.to_k", 1, 3},
    {"double_blocks.*.img_attn.qkv", "transformer_blocks.*.attn.to_v", 2, 3},
    {"double_blocks.*.txt_attn.qkv", "transformer_blocks.*.attn.add_q_proj", 0, 3},
    {"double_blocks.*.txt_attn.qkv", "transformer_blocks.*.attn.add_k_proj", 1, 3},
    {"double_blocks.*.txt_attn.qkv", "transformer_blocks.*.attn.add_v_proj", 2, 3},
    {"double_blocks.*.img_attn.norm.query_norm", "transformer_blocks.*.attn.norm_q"},
    {"double_blocks.*.img_attn.norm.key_norm", "transformer_blocks.*.attn.norm_k"},
    {"double_blocks.*.txt_attn.norm.query_norm", "transformer_blocks.*.attn.norm_added_q"},
    {"double_blocks.*.txt_attn.norm.key_norm", "transformer_blocks.*.attn.norm_added_k"},
    {"double_blocks.*.img_attn.proj", "transformer_blocks.*.attn.to_out.0"},
    {"double_blocks.*.txt_attn.proj", "transformer_blocks.*.attn.to_add_out"},
    {"double_blocks.*.img_mlp.0", "transformer_blocks.*.ff.net.0.proj"},
    {"double_blocks.*.img_mlp.2", "transformer_blocks.*.ff.net.2"},
    {"double_blocks.*.txt_mlp.0", "transformer_blocks.*.ff_context.net.0.proj"},
    {"double_blocks.*.txt_mlp.2", "transformer_blocks.*.ff_context.net.2"},
    {"single_blocks.*.modulation.lin", "single_transformer_blocks.*.norm.linear"},
    {"single_blocks.*.linear1", "single_transformer_blocks.*.attn.to_q", 0, 4},
    {"single_blocks.*.linear1", "single_transformer_blocks.*.attn.to_k", 1, 4},
    {"single_blocks.*.linear1", "single_transformer_blocks.*.attn.to_v", 2, 4},
    {"single_blocks.*.linear1", "single_transformer_blocks.*.proj_mlp", 3, 4},
    {"single_blocks.*.linear2", "single_transformer_blocks.*.proj_out"},
    {"single_blocks.*.norm.query_norm", "single_transformer_blocks.*.attn.norm_q"},
    {"single_blocks.*.norm.key_norm", "single_transformer_blocks.*.attn.norm_k"},
    {"final_layer.linear", "proj_out"},
    {"final_layer.adaLN_modulation.1", "norm_out.linear", 0, 1, true},
};

// The decoder's level number is turned round afterwards (reverse_level).
constexpr Rule kVae[] = {
    {"encoder.conv_in", "encoder.conv_in"},
    {"encoder.conv_out", "encoder.conv_out"},
    {"encoder.norm_out", "encoder.conv_norm_out"},
    {"decoder.conv_in", "decoder.conv_in"},
    {"decoder.conv_out", "decoder.conv_out"},
    {"decoder.norm_out", "decoder.conv_norm_out"},
    {"encoder.down.*.block.*.norm1", "encoder.down_blocks.*.resnets.*.norm1"},
    {"encoder.down.*.block.*.conv1", "encoder.down_blocks.*.resnets.*.conv1"},
    {"encoder.down.*.block.*.norm2", "encoder.down_blocks.*.resnets.*.norm2"},
    {"encoder.down.*.block.*.conv2", "encoder.down_blocks.*.resnets.*.conv2"},
    {"encoder.down.*.block.*.nin_shortcut", "encoder.down_blocks.*.resnets.*.conv_shortcut"},
    {"encoder.down.*.downsample.conv", "encoder.down_blocks.*.downsamplers.0.conv"},
    {"decoder.up.*.block.*.norm1", "decoder.up_blocks.*.resnets.*.norm1"},
    {"decoder.up.*.block.*.conv1", "decoder.up_blocks.*.resnets.*.conv1"},
    {"decoder.up.*.block.*.norm2", "decoder.up_blocks.*.resnets.*.norm2"},
    {"decoder.up.*.block.*.conv2", "decoder.up_blocks.*.resnets.*.conv2"},
    {"decoder.up.*.block.*.nin_shortcut", "decoder.up_blocks.*.resnets.*.conv_shortcut"},
    {"decoder.up.*.upsample.conv", "decoder.up_blocks.*.upsamplers.0.conv"},
    {"encoder.mid.block_1.norm1", "encoder.mid_block.resnets.0.norm1"},
    {"encoder.mid.block_1.conv1", "encoder.mid_block.resnets.0.conv1"},
    {"encoder.mid.block_1.norm2", "encoder.mid_block.resnets.0.norm2"},
    {"encoder.mid.block_1.conv2", "encoder.mid_block.resnets.0.conv2"},
    {"encoder.mid.block_2.norm1", "encoder.mid_block.resnets.1.norm1"},
    {"encoder.mid.block_2.conv1", "encoder.mid_block.resnets.1.conv1"},
    {"encoder.mid.block_2.norm2", "encoder.mid_block.resnets.1.norm2"},
    {"encoder.mid.block_2.conv2", "encoder.mid_block.resnets.1.conv2"},
    {"encoder.mid.attn_1.norm", "encoder.mid_block.attentions.0.group_norm"},
    {"encoder.mid.attn_1.q", "encoder.mid_block.attentions.0.to_q"},
    {"encoder.mid.attn_1.k", "encoder.mid_block.attentions.0.to_k"},
    {"encoder.mid.attn_1.v", "encoder.mid_block.attentions.0.to_v"},
    {"encoder.mid.attn_1.proj_out", "encoder.mid_block.attentions.0.to_out.0"},
    {"decoder.mid.block_1.norm1", "decoder.mid_block.resnets.0.norm1"},
    {"decoder.mid.block_1.conv1", "decoder.mid_block.resnets.0.conv1"},
    {"decoder.mid.block_1.norm2", "decoder.mid_block.resnets.0.norm2"},
    {"decoder.mid.block_1.conv2", "decoder.mid_block.resnets.0.conv2"},
    {"decoder.mid.block_2.norm1", "decoder.mid_block.resnets.1.norm1"},
    {"decoder.mid.block_2.conv1", "decoder.mid_block.resnets.1.conv1"},
    {"decoder.mid.block_2.norm2", "decoder.mid_block.resnets.1.norm2"},
    {"decoder.mid.block_2.conv2", "decoder.mid_block.resnets.1.conv2"},
    {"decoder.mid.attn_1.norm", "decoder.mid_block.attentions.0.group_norm"},
    {"decoder.mid.attn_1.q", "decoder.mid_block.attentions.0.to_q"},
    {"decoder.mid.attn_1.k", "decoder.mid_block.attentions.0.to_k"},
    {"decoder.mid.attn_1.v", "decoder.mid_block.attentions.0.to_v"},
    {"decoder.mid.attn_1.proj_out", "decoder.mid_block.attentions.0.to_out.0"},
    {"quant_conv", "quant_conv"},
    {"post_quant_conv", "post_quant_conv"},
};

constexpr Rule kClip[] = {
    {"text_model.embeddings.token_embedding", "embeddings.token_embedding"},
    {"text_model.embeddings.position_embedding", "embeddings.position_embedding"},
    {"text_model.encoder.layers.*.layer_norm1", "encoder.layers.*.layer_norm1"},
    {"text_model.encoder.layers.*.layer_norm2", "encoder.layers.*.layer_norm2"},
    {"text_model.encoder.layers.*.self_attn.q_proj", "encoder.layers.*.self_attn.q_proj"},
    {"text_model.encoder.layers.*.self_attn.k_proj", "encoder.layers.*.self_attn.k_proj"},
    {"text_model.encoder.layers.*.self_attn.v_proj", "encoder.layers.*.self_attn.v_proj"},
    {"text_model.encoder.layers.*.self_attn.out_proj", "encoder.layers.*.self_attn.out_proj"},
    {"text_model.encoder.layers.*.mlp.fc1", "encoder.layers.*.mlp.fc1"},
    {"text_model.encoder.layers.*.mlp.fc2", "encoder.layers.*.mlp.fc2"},
    {"text_model.final_layer_norm", "final_layer_norm"},
};

// Their side is llama.cpp's naming of T5 in GGUF files.
constexpr Rule kT5[] = {
    {"shared", "token_embd"},
    {"shared", "encoder.embed_tokens"},
    {"encoder.block.*.layer.0.SelfAttention.q", "enc.blk.*.attn_q"},
    {"encoder.block.*.layer.0.SelfAttention.k", "enc.blk.*.attn_k"},
    {"encoder.block.*.layer.0.SelfAttention.v", "enc.blk.*.attn_v"},
    {"encoder.block.*.layer.0.SelfAttention.o", "enc.blk.*.attn_o"},
    {"encoder.block.*.layer.0.SelfAttention.relative_attention_bias", "enc.blk.*.attn_rel_b"},
    {"encoder.block.*.layer.0.layer_norm", "enc.blk.*.attn_norm"},
    {"encoder.block.*.layer.1.DenseReluDense.wi_0", "enc.blk.*.ffn_gate"},
    {"encoder.block.*.layer.1.DenseReluDense.wi_1", "enc.blk.*.ffn_up"},
    {"encoder.block.*.layer.1.DenseReluDense.wi",
     ""},  // ungated T5 1.0, which FLUX.1 does not use but small models may
    {"encoder.block.*.layer.1.DenseReluDense.wo", "enc.blk.*.ffn_down"},
    {"encoder.block.*.layer.1.layer_norm", "enc.blk.*.ffn_norm"},
    {"encoder.final_layer_norm", "enc.output_norm"},
};

struct Table {
  Component component;
  std::span<const Rule> rules;
};
constexpr std::array<Table, 4> kTables = {
    {{Component::transformer, kTransformer}, {Component::vae, kVae}, {Component::clip, kClip}, {Component::t5, kT5}}};

// What checkpoints of several parts, and programs that save from within a wrapper, put in front.
constexpr std::string_view kPrefixes[] = {
    "",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "model.",
    "first_stage_model.",
    "vae.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_l.",
    "text_encoders.t5xxl.transformer.",
    "text_encoders.t5xxl.",
    "cond_stage_model.transformer.",
    "clip_l.",
    "t5xxl.",
};

using Numbers = std::vector<std::string_view>;

constexpr size_t kMaxDigits = 3;

/// Length of the number that `text` starts with, 0 when there is none or it is not written the one usual way.
size_t number_length(std::string_view text) {
  const size_t length = std::min(text.find_first_not_of("0123456789"), text.size());
  const bool leading_zero = length > 1 && text.front() == '0';
  return length <= kMaxDigits && !leading_zero ? length : 0;
}

/// The numbers that stand for the pattern's "*", or nothing when the text does not match.
std::optional<Numbers> match(std::string_view pattern, std::string_view text) {
  Numbers numbers;
  while (!pattern.empty()) {
    if (pattern.front() == '*') {
      const size_t length = number_length(text);
      if (length == 0) return std::nullopt;
      numbers.push_back(text.substr(0, length));
      text.remove_prefix(length);
    } else {
      if (text.empty() || text.front() != pattern.front()) return std::nullopt;
      text.remove_prefix(1);
    }
    pattern.remove_prefix(1);
  }
  if (!text.empty()) return std::nullopt;
  return numbers;
}

std::string substitute(std::string_view pattern, const Numbers& numbers) {
  std::string out;
  size_t next = 0;
  for (const char c : pattern) {
    if (c == '*' && next < numbers.size())
      out += numbers[next++];
    else
      out += c;
  }
  return out;
}

int to_int(std::string_view digits) {
  int value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

/// decoder.up.0 is the level of full resolution, up_blocks.0 the one next to the latents. Nothing for a level that the
/// autoencoder does not have.
std::optional<std::string> reverse_level(std::string_view pattern, Numbers numbers, const KeyContext& context) {
  const int level = context.vae_levels - 1 - to_int(numbers.at(0));
  if (level < 0) return std::nullopt;
  const std::string digits = fmt::to_string(level);
  numbers[0] = digits;
  return substitute(pattern, numbers);
}

/// One side of a rule with the numbers that the other side matched.
std::optional<std::string> translated(const Rule& rule, std::string_view pattern, const Numbers& numbers,
                                      const KeyContext& context) {
  if (rule.ours.starts_with("decoder.up.")) return reverse_level(pattern, numbers, context);
  return substitute(pattern, numbers);
}

// Query and key norms end in "scale" in BFL's files, in "weight" everywhere else.
std::optional<std::string_view> our_leaf(std::string_view stem, std::string_view leaf) {
  const bool head_norm = stem.ends_with(".query_norm") || stem.ends_with(".key_norm");
  if (leaf == "scale" && !head_norm) return std::nullopt;
  return head_norm && leaf == "weight" ? "scale" : leaf;
}

std::optional<CanonicalKey> match_rule(const Table& table, const Rule& rule, std::string_view stem,
                                       std::string_view leaf, const KeyContext& context) {
  CanonicalKey key{.component = table.component};
  std::optional<std::string> ours;
  if (match(rule.ours, stem)) {
    ours = stem;
  } else if (const auto numbers = match(rule.theirs, stem); numbers && !rule.theirs.empty()) {
    ours = translated(rule, rule.ours, *numbers, context);
    key.part = rule.part, key.parts = rule.parts, key.swapped = rule.swapped;
  }
  if (!ours) return std::nullopt;
  const auto last = our_leaf(*ours, leaf);
  if (!last) return std::nullopt;
  key.name = fmt::format("{}.{}", *ours, *last);
  return key;
}

std::optional<CanonicalKey> match_tables(std::string_view stem, std::string_view leaf, const KeyContext& context) {
  for (const Table& table : kTables)
    for (const Rule& rule : table.rules)
      if (auto key = match_rule(table, rule, stem, leaf, context)) return key;
  return std::nullopt;
}

}  // namespace

std::string_view name(Component component) {
  switch (component) {
    case Component::transformer: return "transformer";
    case Component::vae: return "VAE";
    case Component::clip: return "CLIP text encoder";
    case Component::t5: return "T5 text encoder";
  }
  return "part";
}

KeyContext key_context(const std::vector<std::string>& stored_names) {
  KeyContext context{.vae_levels = 0};
  for (const std::string_view stored : stored_names) {
    for (const std::string_view marker : {"decoder.up.", "decoder.up_blocks."}) {
      const size_t at = stored.find(marker);
      if (at == std::string_view::npos) continue;
      const std::string_view rest = stored.substr(at + marker.size());
      const size_t digits = number_length(rest);
      if (digits > 0 && rest.substr(digits).starts_with('.'))
        context.vae_levels = std::max(context.vae_levels, to_int(rest.substr(0, digits)) + 1);
    }
  }
  return context;
}

std::optional<CanonicalKey> canonical_key(std::string_view stored_name, const KeyContext& context) {
  const size_t dot = stored_name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view leaf = stored_name.substr(dot + 1);
  if (leaf != "weight" && leaf != "bias" && leaf != "scale") return std::nullopt;
  for (const std::string_view prefix : kPrefixes) {
    if (!stored_name.starts_with(prefix) || prefix.size() > dot) continue;
    if (auto key = match_tables(stored_name.substr(prefix.size(), dot - prefix.size()), leaf, context)) return key;
  }
  return std::nullopt;
}

std::vector<DiffusersKey> diffusers_keys(std::string_view canonical_name, const KeyContext& context) {
  std::vector<DiffusersKey> keys;
  const size_t dot = canonical_name.rfind('.');
  const std::string_view stem = canonical_name.substr(0, dot);
  const std::string_view leaf = canonical_name.substr(dot + 1) == "scale" ? "weight" : canonical_name.substr(dot + 1);
  for (const Table& table : kTables) {
    if (table.component != Component::transformer && table.component != Component::vae) continue;
    for (const Rule& rule : table.rules) {
      const auto numbers = match(rule.ours, stem);
      if (!numbers) continue;
      if (const auto theirs = translated(rule, rule.theirs, *numbers, context))
        keys.push_back({fmt::format("{}.{}", *theirs, leaf), rule.part, rule.parts, rule.swapped});
    }
  }
  return keys;
}

}  // namespace calotype::weights
