// Encoding of plain types and of ggml's five simple block types; quant_encode_k.cpp has the k-quants.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "weights/quant.h"
#include "weights/quant_blocks.h"

namespace calotype::weights {
namespace {

using files::TensorType;

// ---- Simple blocks: the arithmetic of gguf/quants.py, operation by operation, because the bits must be equal --------

// Kept in memory so that the product is rounded before something is added to it: g++ would fuse the two on CPUs with
// fused multiply-add, and a few codes would differ.
struct Rounded {
  volatile float value;
  operator float() const { return value; }
};

struct Range {
  float lowest, highest;
  float extreme;  ///< the first number of the largest magnitude, with its sign
};

Range range_of(const float* x) {
  Range r{x[0], x[0], x[0]};
  for (size_t i = 1; i < 32; ++i) {
    r.lowest = std::min(r.lowest, x[i]);
    r.highest = std::max(r.highest, x[i]);
    if (std::abs(x[i]) > std::abs(r.extreme)) r.extreme = x[i];
  }
  return r;
}

// A scale of zero or near it is stored as zero; its inverse would be infinite and give codes that are NaN.
float inverse(float scale) { return std::abs(scale) < 0x1p-126F ? 0.0F : 1.0F / scale; }

uint8_t code_of(float value, int largest) {
  return static_cast<uint8_t>(std::clamp(value, 0.0F, static_cast<float>(largest)));
}

struct Codes {
  uint8_t code[32];
};

// Codes of y = scale·(code − zero): the extreme number gets code 0.
Codes encode_around_zero(const float* x, int zero, uint8_t (&d)[2]) {
  const float scale = range_of(x).extreme / static_cast<float>(-zero), inverted = inverse(scale);
  Codes c;
  for (size_t i = 0; i < 32; ++i)
    c.code[i] = code_of(Rounded{x[i] * inverted} + (static_cast<float>(zero) + 0.5F), 2 * zero - 1);
  write_f16(scale, d);
  return c;
}

// Codes of y = scale·code + m: the lowest number gets code 0, the highest `largest`.
Codes encode_above_lowest(const float* x, int largest, uint8_t (&d)[2], uint8_t (&m)[2]) {
  const Range range = range_of(x);
  const float scale = (range.highest - range.lowest) / static_cast<float>(largest), inverted = inverse(scale);
  Codes c;
  for (size_t i = 0; i < 32; ++i) c.code[i] = code_of(Rounded{(x[i] - range.lowest) * inverted} + 0.5F, largest);
  write_f16(scale, d);
  write_f16(range.lowest, m);
  return c;
}

void pack_nibbles(const Codes& c, uint8_t (&qs)[16]) {
  for (size_t l = 0; l < 16; ++l) qs[l] = static_cast<uint8_t>((c.code[l] & 15) | c.code[l + 16] << 4);
}

void pack_fifth_bits(const Codes& c, uint8_t (&qh)[4]) {
  std::memset(qh, 0, sizeof qh);
  for (size_t i = 0; i < 32; ++i) qh[i / 8] = static_cast<uint8_t>(qh[i / 8] | (c.code[i] >> 4) << (i % 8));
}

void encode_block(const float* x, BlockQ4_0& b) { pack_nibbles(encode_around_zero(x, 8, b.d), b.qs); }

void encode_block(const float* x, BlockQ4_1& b) { pack_nibbles(encode_above_lowest(x, 15, b.d, b.m), b.qs); }

void encode_block(const float* x, BlockQ5_0& b) {
  const Codes c = encode_around_zero(x, 16, b.d);
  pack_nibbles(c, b.qs);
  pack_fifth_bits(c, b.qh);
}

void encode_block(const float* x, BlockQ5_1& b) {
  const Codes c = encode_above_lowest(x, 31, b.d, b.m);
  pack_nibbles(c, b.qs);
  pack_fifth_bits(c, b.qh);
}

void encode_block(const float* x, BlockQ8_0& b) {
  const float scale = std::abs(range_of(x).extreme) / 127.0F, inverted = inverse(scale);
  for (size_t i = 0; i < 32; ++i) {
    const float code = std::round(x[i] * inverted);
    b.qs[i] = static_cast<uint8_t>(static_cast<int8_t>(code));
  }
  write_f16(scale, b.d);
}

// ---- All types ------------------------------------------------------------------------------------------------------

template <class Block>
void encode_blocks(TensorType type, std::span<const float> values, std::span<std::byte> out) {
  const auto odd = std::ranges::find_if_not(values, [](float x) { return std::abs(x) <= 65504.0F; });
  base::check(odd == values.end(), base::ErrorKind::bad_input,
              "number {} is {}, but {} holds only finite numbers up to 65504; keep this tensor in f32 or bf16",
              odd - values.begin(), odd == values.end() ? 0.0F : *odd, files::name(type));
  const auto per_block = static_cast<size_t>(files::traits(type).block);
  auto* block = reinterpret_cast<Block*>(out.data());
  for (size_t i = 0; i < values.size(); i += per_block, ++block) encode_block(values.data() + i, *block);
}

// bf16 and f16 are written through a buffer: `out` need not be aligned for them.
template <typename Convert>
void encode_halves(std::span<const float> values, std::span<std::byte> out, Convert convert) {
  uint16_t buffer[1024];
  for (size_t i = 0; i < values.size(); i += std::size(buffer)) {
    const auto part = values.subspan(i, std::min(std::size(buffer), values.size() - i));
    convert(TensorType::f32, std::as_bytes(part), std::span(buffer).first(part.size()), 1.0F);
    std::memcpy(out.data() + 2 * i, buffer, 2 * part.size());
  }
}

void check_encode(TensorType type, std::span<const float> values, std::span<std::byte> out) {
  using base::ErrorKind;
  base::check(files::is_real(type) && type != TensorType::f64, ErrorKind::unsupported,
              "weights cannot be written as {}", files::name(type));
  const auto expected = files::bytes_of(type, values.size());
  base::check(expected.has_value(), ErrorKind::bad_input, "{} numbers cannot be written as {}, whose blocks have {}",
              values.size(), files::name(type), files::traits(type).block);
  base::check(out.size() == *expected, ErrorKind::internal, "{} numbers of type {} take {} bytes, got room for {}",
              values.size(), files::name(type), *expected, out.size());
}

}  // namespace

void encode(TensorType type, std::span<const float> values, std::span<std::byte> out) {
  check_encode(type, values, out);
  const std::span<uint8_t> bytes(reinterpret_cast<uint8_t*>(out.data()), out.size());
  switch (type) {
    case TensorType::f32:
      if (!out.empty()) std::memcpy(out.data(), values.data(), out.size());
      return;
    case TensorType::bf16: return encode_halves(values, out, decode_bf16);
    case TensorType::f16: return encode_halves(values, out, decode_f16);
    case TensorType::f8_e4m3: return encode_e4m3(values, bytes);
    case TensorType::f8_e5m2: return encode_e5m2(values, bytes);
    case TensorType::q4_0: return encode_blocks<BlockQ4_0>(type, values, out);
    case TensorType::q4_1: return encode_blocks<BlockQ4_1>(type, values, out);
    case TensorType::q5_0: return encode_blocks<BlockQ5_0>(type, values, out);
    case TensorType::q5_1: return encode_blocks<BlockQ5_1>(type, values, out);
    case TensorType::q8_0: return encode_blocks<BlockQ8_0>(type, values, out);
    case TensorType::q2_k: return encode_blocks<BlockQ2_K>(type, values, out);
    case TensorType::q3_k: return encode_blocks<BlockQ3_K>(type, values, out);
    case TensorType::q4_k: return encode_blocks<BlockQ4_K>(type, values, out);
    case TensorType::q5_k: return encode_blocks<BlockQ5_K>(type, values, out);
    case TensorType::q6_k: return encode_blocks<BlockQ6_K>(type, values, out);
    default: return;  // refused by check_encode
  }
}

}  // namespace calotype::weights
