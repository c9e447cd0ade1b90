// Number codecs: every real TensorType of a checkpoint (plain, fp8, ggml blocks) to f32, bf16 or f16, and f32 to it.
//
//   std::vector<uint16_t> row(3072);                             // bf16 bit patterns
//   decode_bf16(TensorType::q4_k, tensor.bytes(row_begin, row_end), row);
//   encode(TensorType::q8_0, values, bytes);                     // bytes.size() == *bytes_of(q8_0, values.size())
//
// Every function works on the calling thread and may run on many at once; callers split a tensor by rows. Bytes need no
// alignment. Decoding picks the widest SIMD of the machine at run time; all of them give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "files/tensor_type.h"

namespace calotype::weights {

/// out[i] = value[i] · scale in f32. `bytes` must hold exactly out.size() numbers, whole blocks; anything else, and
/// integer types, are an Error. Non-finite numbers pass through; values equal those of torch and of the gguf package.
void decode_f32(files::TensorType type, std::span<const std::byte> bytes, std::span<float> out, float scale = 1.0F);

/// decode_f32 rounded once more, to the nearest bf16 (ties to even), as bit patterns.
void decode_bf16(files::TensorType type, std::span<const std::byte> bytes, std::span<uint16_t> out, float scale = 1.0F);

/// decode_f32 rounded once more, to the nearest f16 (ties to even, overflow to infinity), as bit patterns.
void decode_f16(files::TensorType type, std::span<const std::byte> bytes, std::span<uint16_t> out, float scale = 1.0F);

/// Writes values as `type`, any real type but f64. `out` must have exactly bytes_of(type, values.size()) bytes.
///
/// - bf16, f16, f8_e5m2: nearest, ties to even, overflow to infinity, as torch casts.
/// - f8_e4m3 (no infinity): the same up to ±448, larger numbers and infinities become ±448; NaN stays NaN.
/// - q4_0 q4_1 q5_0 q5_1 q8_0: bit-equal to ggml's reference quantisation.
/// - q2_k … q6_k: our own least-squares search, with an error below that of rounding between minimum and maximum.
///
/// Block types refuse NaN, infinities and magnitudes above 65504, because their scales are f16.
void encode(files::TensorType type, std::span<const float> values, std::span<std::byte> out);

}  // namespace calotype::weights
