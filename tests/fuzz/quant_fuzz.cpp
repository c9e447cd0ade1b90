// Numbers of every type from any bytes: the first byte chooses the type, the rest are blocks.
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "fuzz.h"
#include "weights/quant.h"

namespace calotype::fuzz {
namespace {

using files::TensorType;

/// Nearest bf16 bit pattern, ties to even; IEEE 754 rounding done on the bits.
uint16_t nearest_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/// The number that an f16 bit pattern stands for, by the definition of the format.
double value_of_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

/// The nearest number that f16 has, ties to even, infinite from 65520 on.
double rounded_to_f16(float value) {
  if (!std::isfinite(value) || value == 0) return value;
  if (std::abs(value) >= 65520) return std::copysign(INFINITY, value);
  const int unit = std::max(std::ilogb(value), -14) - 10;
  return std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(value), -unit)), unit);
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

void check_rounding(const std::vector<float>& exact, const std::vector<uint16_t>& bf16,
                    const std::vector<uint16_t>& f16) {
  for (size_t i = 0; i < exact.size(); ++i) {
    const bool nan = std::isnan(exact[i]);
    const bool bf16_nan = (bf16[i] & 0x7FFF) > 0x7F80;
    require(nan ? bf16_nan : bf16[i] == nearest_bf16(exact[i]), "bf16 is the nearest to f32");
    const double half = value_of_f16(f16[i]), expected = rounded_to_f16(exact[i]);
    require(nan ? std::isnan(half) : half == expected && std::signbit(half) == std::signbit(expected),
            "f16 is the nearest to f32");
  }
}

/// Finite numbers within f16's range are encoded; the rest is refused by block types. Neither may read or write beyond.
void check_encoding(TensorType type, std::span<const float> values) {
  std::vector<std::byte> stored(*files::bytes_of(type, values.size()));
  if (!accepted([&] { weights::encode(type, values, stored); }, "")) return;
  std::vector<float> back(values.size());
  weights::decode_f32(type, stored, back);
  for (size_t i = 0; i < back.size() && files::is_block(type); ++i)
    require(std::isfinite(back[i]), "finite numbers stay finite in blocks");
}

}  // namespace

void fuzz_one(std::string_view input) {
  constexpr TensorType kReal[] = {TensorType::f64,     TensorType::f32,     TensorType::f16,  TensorType::bf16,
                                  TensorType::f8_e4m3, TensorType::f8_e5m2, TensorType::q4_0, TensorType::q4_1,
                                  TensorType::q5_0,    TensorType::q5_1,    TensorType::q8_0, TensorType::q2_k,
                                  TensorType::q3_k,    TensorType::q4_k,    TensorType::q5_k, TensorType::q6_k};
  if (input.empty()) return;
  const TensorType type = kReal[static_cast<unsigned char>(input[0]) % std::size(kReal)];
  const files::TypeTraits& traits = files::traits(type);
  const size_t blocks = (input.size() - 1) / static_cast<size_t>(traits.block_bytes);
  if (blocks == 0) return;
  const size_t count = blocks * static_cast<size_t>(traits.block);
  // A copy of exactly these bytes, at an odd address: the sanitizer sees a read of one more.
  std::vector<std::byte> storage(1 + blocks * static_cast<size_t>(traits.block_bytes));
  std::memcpy(storage.data(), input.data(), storage.size());
  const auto bytes = std::span<const std::byte>(storage).subspan(1);

  std::vector<float> exact(count);
  std::vector<uint16_t> bf16(count), f16(count);
  weights::decode_f32(type, bytes, exact);
  weights::decode_bf16(type, bytes, bf16);
  weights::decode_f16(type, bytes, f16);
  check_rounding(exact, bf16, f16);

  std::vector<float> pieces(count);
  const size_t first = blocks / 3 * static_cast<size_t>(traits.block),
               cut = blocks / 3 * static_cast<size_t>(traits.block_bytes);
  weights::decode_f32(type, bytes.first(cut), std::span(pieces).first(first));
  weights::decode_f32(type, bytes.subspan(cut), std::span(pieces).subspan(first));
  require(same_bits(exact, pieces), "rows decoded apart are the rows decoded together");

  std::vector<float> values(count);
  const size_t known = std::min(count, bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), known * sizeof(float));
  if (type != TensorType::f64) check_encoding(type, values);
  if (type != TensorType::f64) check_encoding(type, exact);
}

}  // namespace calotype::fuzz
