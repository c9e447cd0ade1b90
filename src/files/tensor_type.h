// The element types that checkpoints store: plain numbers and ggml's blocks of quantised numbers.
//
//   bytes_of(TensorType::q8_0, 3072) == 3264     // 96 blocks of 34 bytes
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace calotype::files {

enum class TensorType {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
};

struct TypeTraits {
  TensorType type;
  std::string_view name;         ///< our spelling, lower case, also that of `convert --type`
  std::string_view safetensors;  ///< "" where safetensors cannot hold it
  int ggml;                      ///< ggml_type number, −1 where GGUF cannot hold it
  int64_t block;                 ///< elements in a block, 1 for plain types
  int64_t block_bytes;
};

const TypeTraits& traits(TensorType type);
inline std::string_view name(TensorType type) { return traits(type).name; }
inline bool is_block(TensorType type) { return traits(type).block > 1; }
/// Real numbers (plain, fp8 or quantised), as weights are; false for integers and booleans.
bool is_real(TensorType type);

std::optional<TensorType> type_from_name(std::string_view name);
std::optional<TensorType> type_from_safetensors(std::string_view name);
std::optional<TensorType> type_from_ggml(uint32_t number);

/// Bytes of `elements` numbers; block types need a multiple of their block. Nothing on overflow or a broken block.
std::optional<uint64_t> bytes_of(TensorType type, uint64_t elements);

}  // namespace calotype::files
