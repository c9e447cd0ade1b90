// Adapter files (LoRA) of any dialect, read into pairs of matrices under our layers' names, and written as diffusers
// and PEFT write them.
//
//   Adapter style = read_adapter("style.safetensors");
//   Applied done = attach(style, 0.8, transformer.adapter_slots(), at::kCPU);         // lora_apply.h
//   write_adapter("mine.safetensors", pairs, {{"trigger", "TOK"}}, at::kBFloat16);
//
// Read tensors are copies: the file may be replaced while an adapter lives. Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace calotype::adapters {

/// W' = W + scale · up · down, in the rows of one part of a layer. Source: Hu et al. 2106.09685.
struct AdapterPair {
  std::string layer;        ///< "double_blocks.0.img_attn.qkv", as in weights::AdapterSlots
  int part = 0, parts = 1;  ///< rows: 1 all, 3 q, k, v, 4 q, k, v, mlp (lora_apply.h, rows_of)
  at::Tensor down_RI;       ///< [rank, in]; f32 when read
  at::Tensor up_OR;         ///< [rows, rank]; f32 when read
  double scale = 1;         ///< alpha / rank
  std::string stored_name;  ///< the layer in the file's dialect, for messages
};

struct Adapter {
  std::vector<AdapterPair> pairs;
  std::map<std::string, std::string> metadata;  ///< as stored
  std::vector<std::string> warnings;            ///< what is in the file and has no effect
  int stored = 0;                               ///< adapted layers in the file, text encoders' included
  std::string where;                            ///< the path
};

/// Content decides the dialect. The scale is alpha / rank by the layer's alpha or by lora_adapter_metadata, 1 where
/// neither is there. Errors: those of files::open_tensor_file; bad_input for a file without LoRA matrices or made for
/// another family of models; unsupported for kinds that are not low-rank products (LoKr, DoRA, …); corrupt_file for
/// halves that are missing or do not fit each other, NaN and infinite numbers.
Adapter read_adapter(const std::filesystem::path& path);

/// Writes "transformer.transformer_blocks.0.attn.to_q.lora_A.weight", … in f32, bf16 or f16 and rank and alpha in the
/// metadata entry lora_adapter_metadata, as diffusers 0.36 and later read them. Pairs of all rows of a fused layer are
/// split, with the same A. A layer's row ranges occur once each. Errors: those of weights::write_tensors; internal when
/// a number is not finite in `dtype`.
void write_adapter(const std::filesystem::path& path, const std::vector<AdapterPair>& pairs,
                   const std::map<std::string, std::string>& metadata, at::ScalarType dtype);

}  // namespace calotype::adapters
