// What a tensor of an adapter file is, told from its name alone, in whatever program's dialect.
//
//   adapter_key("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight")
//     → {transformer, "double_blocks.0.img_attn.qkv", all rows, Role::down}
//   adapter_key("transformer.single_transformer_blocks.3.attn.to_k.lora_B.weight")
//     → {transformer, "single_blocks.3.linear1", part 1 of 4, Role::up}
//
// Names of layers come from weights/key_map. Dialects: diffusers and PEFT, kohya sd-scripts, ComfyUI, XLabs, fal and
// BFL, OneTrainer, ai-toolkit (which writes diffusers'). Sources: diffusers loaders/lora_conversion_utils.py, kohya
// networks/lora_flux.py, ComfyUI comfy/lora.py, OneTrainer convert_lora_util.py. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace calotype::adapters {

/// What a tensor does for its layer.
enum class Role {
  down,     ///< A, [rank, in]
  up,       ///< B, [out, rank]
  alpha,    ///< one number; the correction is alpha / rank · B·A
  foreign,  ///< part of an adapter of a kind that is not low-rank products alone; `kind` names it
  none,     ///< no tensor of an adapter
};

/// Which part of the program's models it belongs to.
enum class Place { transformer, text_encoder, unknown };

struct AdapterKey {
  Place place = Place::unknown;
  Role role = Role::none;
  std::string_view kind;  ///< of Role::foreign: "LoKr adapter", "LoRA with biases", …
  std::string stem;       ///< the stored name without its role: the same for all tensors of a layer
  std::string module;     ///< the stem without the dialect's prefix

  // For Place::transformer:
  std::string layer;        ///< our name, without ".weight"
  int part = 0, parts = 1;  ///< rows that change, counted as in weights::CanonicalKey
  int span = 1;             ///< parts that one matrix covers: 3 of 4 where XLabs leaves out a layer's last part
  bool swapped = false;     ///< the halves of the rows are exchanged
};

AdapterKey adapter_key(std::string_view stored_name);

/// Our name of a layer such as "double_blocks.0.img_attn.qkv" in the dialect of diffusers and PEFT, one for each part:
/// "transformer_blocks.0.attn.to_q", …
struct ModuleName {
  std::string name;
  int part = 0, parts = 1;
  bool swapped = false;
};
std::vector<ModuleName> diffusers_modules(std::string_view layer);

}  // namespace calotype::adapters
