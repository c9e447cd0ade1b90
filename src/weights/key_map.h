// The one table of tensor names: every layout that users hold, mapped onto the names our code uses, and back.
//
//   canonical_key("transformer_blocks.0.attn.to_k.weight", {})
//     → {transformer, "double_blocks.0.img_attn.qkv.weight", part 1 of 3}
//
// Our names are those of Black Forest Labs (transformer), of the latent-diffusion code (autoencoder) and of Hugging
// Face (CLIP, T5). Sources: diffusers scripts/convert_flux_to_diffusers.py and loaders/single_file_utils.py,
// city96/ComfyUI-GGUF tools/convert.py. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace calotype::weights {

enum class Component { transformer, vae, clip, t5 };
/// "transformer", "VAE", "CLIP text encoder", "T5 text encoder".
std::string_view name(Component component);

struct CanonicalKey {
  Component component = Component::transformer;
  std::string name;      ///< ends in .weight, .bias or .scale
  int part = 0;          ///< which row range of a fused tensor this is
  int parts = 1;         ///< 3 for q, k, v; 4 for q, k, v, mlp
  bool swapped = false;  ///< the two halves of the rows are exchanged (final_layer.adaLN_modulation.1)
};

/// The autoencoder's decoder levels are counted from opposite ends in the two layouts, so their number is needed.
struct KeyContext {
  int vae_levels = 4;
};
KeyContext key_context(const std::vector<std::string>& stored_names);

/// Nothing for names that no FLUX.1 part has. Prefixes of ComfyUI and others ("model.diffusion_model.", "vae.", …) are
/// accepted in front.
std::optional<CanonicalKey> canonical_key(std::string_view stored_name, const KeyContext& context);

struct DiffusersKey {
  std::string name;
  int part = 0, parts = 1;
  bool swapped = false;
};
/// The diffusers names that one of our transformer or autoencoder tensors becomes, in row order.
std::vector<DiffusersKey> diffusers_keys(std::string_view canonical_name, const KeyContext& context);

}  // namespace calotype::weights
