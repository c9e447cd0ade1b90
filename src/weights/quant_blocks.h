// What the codec files share. First ggml's quantised blocks (ggml-common.h); quant_decode.cpp says how they are read.
// Members named d, dmin and m are f16. All members are bytes, so a block may stand at any address.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace calotype::weights {

// clang-format off
struct BlockQ4_0 { uint8_t d[2], qs[16]; };
struct BlockQ4_1 { uint8_t d[2], m[2], qs[16]; };
struct BlockQ5_0 { uint8_t d[2], qh[4], qs[16]; };
struct BlockQ5_1 { uint8_t d[2], m[2], qh[4], qs[16]; };
struct BlockQ8_0 { uint8_t d[2], qs[32]; };

struct BlockQ2_K { uint8_t scales[16], qs[64], d[2], dmin[2]; };
struct BlockQ3_K { uint8_t hmask[32], qs[64], scales[12], d[2]; };
struct BlockQ4_K { uint8_t d[2], dmin[2], scales[12], qs[128]; };
struct BlockQ5_K { uint8_t d[2], dmin[2], scales[12], qh[32], qs[128]; };
struct BlockQ6_K { uint8_t ql[128], qh[64], scales[16], d[2]; };
// clang-format on

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2_K) == 84);
static_assert(sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176);
static_assert(sizeof(BlockQ6_K) == 210);

/// A block's f16 scale. Integers, so that compilers select without a branch: subnormal scales are common and random.
inline float read_f16(const uint8_t (&bytes)[2]) {
  const uint32_t half = bytes[0] | static_cast<uint32_t>(bytes[1]) << 8;
  const uint32_t magnitude = half & 0x7FFF, sign = (half & 0x8000) << 16;
  const uint32_t subnormal = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24F);
  const uint32_t normal = ((magnitude << 13) + (112U << 23)) | (magnitude >= 0x7C00 ? 0x7F800000U : 0U);
  return std::bit_cast<float>((magnitude < 0x400 ? subnormal : normal) | sign);
}

/// Stores a scale of at most 65504 as f16, nearest even, and returns what was stored.
inline float write_f16(float value, uint8_t (&bytes)[2]) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  // Below 2^-14, adding 0.5 leaves the subnormal's bits, rounded, at the end of the sum's.
  const uint32_t half = magnitude < 113U << 23
                            ? std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F000000U
                            : (magnitude - (112U << 23) + 0xFFF + ((magnitude >> 13) & 1)) >> 13;
  bytes[0] = static_cast<uint8_t>(half);
  bytes[1] = static_cast<uint8_t>(half >> 8 | (bits >> 31) << 7);
  return read_f16(bytes);
}

/// Nearest fp8 numbers as encode() promises them; `out` has as many elements.
void encode_e4m3(std::span<const float> values, std::span<uint8_t> out);
void encode_e5m2(std::span<const float> values, std::span<uint8_t> out);

/// The block that is closest to 256 finite numbers, as far as the search goes (quant_encode_k.cpp).
void encode_block(const float* values, BlockQ2_K& block);
void encode_block(const float* values, BlockQ3_K& block);
void encode_block(const float* values, BlockQ4_K& block);
void encode_block(const float* values, BlockQ5_K& block);
void encode_block(const float* values, BlockQ6_K& block);

}  // namespace calotype::weights
