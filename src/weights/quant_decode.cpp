// Decoding, compiled once per SIMD target by Highway. A block is first unpacked to 8-bit codes and the scales of its
// groups (one function per type), then all types share the loop that multiplies, rounds and stores.
#include <cstring>
#include <utility>

#include "base/error.h"
#include "weights/quant.h"
#include "weights/quant_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "weights/quant_decode.cpp"
#include <hwy/foreach_target.h>  // must precede highway.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace calotype::weights::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using files::TensorType;

// Sixteen lanes at most: the smallest group of a block type.
using Floats = hn::CappedTag<float, 16>;
using Words = hn::RebindToUnsigned<Floats>;
using Ints = hn::RebindToSigned<Floats>;
constexpr Floats df;
constexpr Words du;
constexpr Ints di;

// A vector from any address. Only the scalar target has no byte vectors of the same size.
template <class D>
hn::Vec<D> load_bytes(D d, const uint8_t* bytes) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    hn::TFromD<D> value;
    std::memcpy(&value, bytes, sizeof value);
    return hn::Set(d, value);
  } else {
    return hn::BitCast(d, hn::LoadU(hn::Repartition<uint8_t, D>(), bytes));
  }
}

inline uint32_t load_u32(const uint8_t (&bytes)[4]) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// ---- Small floats <-> f32 -------------------------------------------------------------------------------------------

// kSpecial is the first magnitude that is infinite or NaN, kLargest what overflow becomes.
struct F16 {
  using Bits = uint16_t;
  static constexpr int kMantissa = 10, kBias = 15, kSpecial = 0x7C00;
  static constexpr uint32_t kLargest = 0x7C00, kNan = 0x7E00;
};
struct F8E5M2 {
  using Bits = uint8_t;
  static constexpr int kMantissa = 2, kBias = 15, kSpecial = 0x7C;
  static constexpr uint32_t kLargest = 0x7C, kNan = 0x7F;
};
struct F8E4M3 {
  using Bits = uint8_t;
  static constexpr int kMantissa = 3, kBias = 7, kSpecial = 0x7F;
  static constexpr uint32_t kLargest = 0x7E, kNan = 0x7F;
};

constexpr float power_of_two(int exponent) { return std::bit_cast<float>((127 + exponent) << 23); }

// Highway's own f16 conversions are inexact for subnormals and infinities on targets without such an instruction.
template <class Format>
hn::Vec<Floats> widen(hn::Vec<Words> bits) {
  constexpr int kSign = 8 * sizeof(typename Format::Bits) - 1;
  const auto magnitude = hn::And(bits, hn::Set(du, (1U << kSign) - 1));
  const auto sign = hn::And(hn::ShiftLeft<31 - kSign>(bits), hn::Set(du, 1U << 31));
  const auto as_int = hn::BitCast(di, magnitude);
  const auto is_subnormal = hn::RebindMask(du, hn::Lt(as_int, hn::Set(di, 1 << Format::kMantissa)));
  const auto is_special = hn::RebindMask(du, hn::Gt(as_int, hn::Set(di, Format::kSpecial - 1)));

  const auto rebias = hn::Set(du, (127U - Format::kBias) << 23);
  const auto normal = hn::Add(hn::ShiftLeft<23 - Format::kMantissa>(magnitude), rebias);
  const auto unit = hn::Set(df, power_of_two(1 - Format::kBias - Format::kMantissa));
  const auto subnormal = hn::BitCast(du, hn::Mul(hn::ConvertTo(df, as_int), unit));
  const auto finite = hn::IfThenElse(is_subnormal, subnormal, normal);
  const auto infinite = hn::IfThenElseZero(is_special, hn::Set(du, 0x7F800000U));
  return hn::BitCast(df, hn::Or(hn::Or(finite, infinite), sign));
}

// Nearest, ties to even; the result is in the low bits.
template <class Format>
hn::Vec<Words> narrow(hn::Vec<Floats> value) {
  constexpr int kSign = 8 * sizeof(typename Format::Bits) - 1, kShift = 23 - Format::kMantissa;
  const auto bits = hn::BitCast(du, value);
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFU));
  const auto sign = hn::And(hn::ShiftRight<31 - kSign>(bits), hn::Set(du, 1U << kSign));
  const auto as_int = hn::BitCast(di, magnitude);
  const auto is_subnormal = hn::RebindMask(du, hn::Lt(as_int, hn::Set(di, (128 - Format::kBias) << 23)));
  const auto is_nan = hn::RebindMask(du, hn::Gt(as_int, hn::Set(di, 0x7F800000)));

  constexpr uint32_t kRebias = (127U - Format::kBias) << 23, kAlmostHalf = (1U << (kShift - 1)) - 1;
  const auto odd = hn::And(hn::ShiftRight<kShift>(magnitude), hn::Set(du, 1));
  const auto normal = hn::ShiftRight<kShift>(hn::Add(hn::Add(magnitude, odd), hn::Set(du, kAlmostHalf - kRebias)));
  // The last bit of `anchor` is worth one subnormal unit, so adding it makes the processor round to such units.
  const auto anchor = hn::Set(df, power_of_two(1 - Format::kBias - Format::kMantissa + 23));
  const auto anchored = hn::Add(hn::BitCast(df, magnitude), anchor);
  const auto subnormal = hn::Sub(hn::BitCast(du, anchored), hn::BitCast(du, anchor));
  const auto finite = hn::Min(hn::IfThenElse(is_subnormal, subnormal, normal), hn::Set(du, Format::kLargest));
  return hn::Or(hn::IfThenElse(is_nan, hn::Set(du, Format::kNan), finite), sign);
}

// ---- Targets: how 32-bit lanes are stored ---------------------------------------------------------------------------

struct ToF32 {
  using Bits = float;
  static void store(hn::Vec<Floats> value, float* out) { hn::StoreU(value, df, out); }
};

template <class Format>
struct ToSmall {
  using Bits = typename Format::Bits;
  static void store(hn::Vec<Floats> value, Bits* out) {
    const hn::Rebind<Bits, Floats> d_out;
    hn::StoreU(hn::TruncateTo(d_out, narrow<Format>(value)), d_out, out);
  }
};

// Not the processor's bf16 conversion: that one turns subnormals into zero.
struct ToBf16 {
  using Bits = uint16_t;
  static void store(hn::Vec<Floats> value, uint16_t* out) {
    const hn::Rebind<uint16_t, Floats> d16;
    const auto bits = hn::BitCast(du, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const auto rounded = hn::Add(hn::Add(bits, odd), hn::Set(du, 0x7FFFU));
    const auto quiet_nan = hn::Or(bits, hn::Set(du, 1U << 22));
    const auto chosen = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(value)), quiet_nan, rounded);
    hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(chosen)), d16, out);
  }
};

// ---- Plain types ----------------------------------------------------------------------------------------------------

struct FromF32 {
  using Bits = float;
  static hn::Vec<Floats> load(const uint8_t* bytes) { return load_bytes(df, bytes); }
};

// By the compiler, because Highway's scalar target turns overflow into the largest number. Speed does not matter here.
struct FromF64 {
  using Bits = double;
  static hn::Vec<Floats> load(const uint8_t* bytes) {
    double doubles[16];
    float floats[16];
    std::memcpy(doubles, bytes, hn::Lanes(df) * sizeof(double));
    for (size_t i = 0; i < hn::Lanes(df); ++i) floats[i] = static_cast<float>(doubles[i]);
    return hn::LoadU(df, floats);
  }
};

struct FromBf16 {
  using Bits = uint16_t;
  static hn::Vec<Floats> load(const uint8_t* bytes) {
    const auto halves = load_bytes(hn::Rebind<uint16_t, Floats>(), bytes);
    return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du, halves)));
  }
};

template <class Format>
struct FromSmall {
  using Bits = typename Format::Bits;
  static hn::Vec<Floats> load(const uint8_t* bytes) {
    return widen<Format>(hn::PromoteTo(du, load_bytes(hn::Rebind<Bits, Floats>(), bytes)));
  }
};

template <class Target>
struct Task {
  const uint8_t* bytes;
  size_t count;
  float scale;
  typename Target::Bits* out;
};

template <class Source, class Target>
void decode_plain(const Task<Target>& task) {
  constexpr size_t kSize = sizeof(typename Source::Bits);
  const auto scale = hn::Set(df, task.scale);
  size_t i = 0;
  for (; i + hn::Lanes(df) <= task.count; i += hn::Lanes(df))
    Target::store(hn::Mul(Source::load(task.bytes + i * kSize), scale), task.out + i);
  if (i == task.count) return;

  uint8_t bytes[16 * kSize] = {};
  typename Target::Bits out[16];
  std::memcpy(bytes, task.bytes + i * kSize, (task.count - i) * kSize);
  Target::store(hn::Mul(Source::load(bytes), scale), out);
  std::memcpy(task.out + i, out, (task.count - i) * sizeof out[0]);
}

// ---- Block types ----------------------------------------------------------------------------------------------------

/// One block: element i is scale[g]·code[i] − offset[g] of its group g = i / kGroup; codes are int8 in two's
/// complement. An f16 number has 11 significant bits, the integers have 12 more at most (q6_k: 7 and 5): every product
/// is exact in f32, so that a fused multiply-add gives the same bits as two operations.
template <size_t kCodes, size_t kGroupSize>
struct Unpacked {
  static constexpr size_t kElements = kCodes, kGroup = kGroupSize;
  alignas(64) uint8_t code[kCodes];
  float scale[kCodes / kGroupSize];
  float offset[kCodes / kGroupSize] = {};
};

// (byte >> shift) & mask.
template <class D>
hn::Vec<D> field(D d, hn::Vec<D> bytes, int shift, uint8_t mask) {
  return hn::And(hn::ShiftRightSame(bytes, shift), hn::Set(d, mask));
}

// `on` in every byte that has the bit, else 0.
template <class D>
hn::Vec<D> flag(D d, hn::Vec<D> bytes, int bit, uint8_t on) {
  return hn::IfThenElseZero(hn::TestBit(bytes, hn::Set(d, static_cast<uint8_t>(1U << bit))), hn::Set(d, on));
}

// 32 codes, less `zero`: byte l holds the low nibbles of elements l and l + 16, bit i of `fifth` is the fifth bit of
// element i.
inline void unpack_32(const uint8_t (&qs)[16], uint32_t fifth, uint8_t zero, uint8_t (&code)[32]) {
  const hn::CappedTag<uint8_t, 16> d;
  for (size_t l = 0; l < 16; l += hn::Lanes(d)) {
    const auto q = hn::LoadU(d, qs + l);
    for (const size_t half : {0U, 1U}) {
      const uint64_t bits = fifth >> (16 * half + l);  // LoadMaskBits may read all eight bytes
      const auto on = hn::IfThenElseZero(hn::LoadMaskBits(d, reinterpret_cast<const uint8_t*>(&bits)), hn::Set(d, 16));
      const auto nibble = field(d, q, 4 * static_cast<int>(half), 15);
      hn::StoreU(hn::Sub(hn::Or(nibble, on), hn::Set(d, zero)), d, code + 16 * half + l);
    }
  }
}

inline Unpacked<32, 32> unpack(const BlockQ4_0& b) {
  Unpacked<32, 32> u;
  unpack_32(b.qs, 0, 8, u.code);
  u.scale[0] = read_f16(b.d);
  return u;
}

inline Unpacked<32, 32> unpack(const BlockQ4_1& b) {
  Unpacked<32, 32> u;
  unpack_32(b.qs, 0, 0, u.code);
  u.scale[0] = read_f16(b.d);
  u.offset[0] = -read_f16(b.m);
  return u;
}

inline Unpacked<32, 32> unpack(const BlockQ5_0& b) {
  Unpacked<32, 32> u;
  unpack_32(b.qs, load_u32(b.qh), 16, u.code);
  u.scale[0] = read_f16(b.d);
  return u;
}

inline Unpacked<32, 32> unpack(const BlockQ5_1& b) {
  Unpacked<32, 32> u;
  unpack_32(b.qs, load_u32(b.qh), 0, u.code);
  u.scale[0] = read_f16(b.d);
  u.offset[0] = -read_f16(b.m);
  return u;
}

inline Unpacked<32, 32> unpack(const BlockQ8_0& b) {
  Unpacked<32, 32> u;
  std::memcpy(u.code, b.qs, sizeof b.qs);
  u.scale[0] = read_f16(b.d);
  return u;
}

// Two bits each: byte l of half h holds elements l, l + 32, l + 64 and l + 96 of that half.
inline Unpacked<256, 16> unpack(const BlockQ2_K& b) {
  const hn::CappedTag<uint8_t, 32> d;
  Unpacked<256, 16> u;
  for (size_t h = 0; h < 2; ++h)
    for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
      const auto q = hn::LoadU(d, b.qs + 32 * h + l);
      for (size_t k = 0; k < 4; ++k)
        hn::StoreU(field(d, q, 2 * static_cast<int>(k), 3), d, u.code + 128 * h + 32 * k + l);
    }
  const float scale = read_f16(b.d), offset = read_f16(b.dmin);
  for (size_t g = 0; g < 16; ++g) {
    u.scale[g] = scale * static_cast<float>(b.scales[g] & 15);
    u.offset[g] = offset * static_cast<float>(b.scales[g] >> 4);
  }
  return u;
}

// As Q2_K, with a third bit in hmask: bit 4h + k of byte l. Codes are −4…3: a clear third bit means −4.
inline Unpacked<256, 16> unpack(const BlockQ3_K& b) {
  const hn::CappedTag<uint8_t, 32> d;
  Unpacked<256, 16> u;
  for (size_t h = 0; h < 2; ++h)
    for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
      const auto q = hn::LoadU(d, b.qs + 32 * h + l), high = hn::LoadU(d, b.hmask + l);
      for (size_t k = 0; k < 4; ++k) {
        const auto third = flag(d, high, static_cast<int>(4 * h + k), 4);
        const auto code = hn::Add(field(d, q, 2 * static_cast<int>(k), 3), third);
        hn::StoreU(hn::Sub(code, hn::Set(d, 4)), d, u.code + 128 * h + 32 * k + l);
      }
    }
  uint32_t word[3], six_bits[4];  // four scales in each word, one a byte
  std::memcpy(word, b.scales, sizeof word);
  for (int k = 0; k < 4; ++k)
    six_bits[k] = ((word[k % 2] >> (4 * (k / 2))) & 0x0F0F0F0F) | (((word[2] >> (2 * k)) & 0x03030303) << 4);
  uint8_t scales[16];
  std::memcpy(scales, six_bits, sizeof scales);
  const float scale = read_f16(b.d);
  for (size_t g = 0; g < 16; ++g) u.scale[g] = scale * static_cast<float>(scales[g] - 32);
  return u;
}

// Eight 6-bit scales and offsets in 12 bytes: the low 6 bits of bytes 0–3 and 4–7 are the first four of each; the
// other four have their low nibbles in bytes 8–11 and their high bits on top of bytes 0–3 and 4–7.
template <class Block>
void read_scales_and_offsets(const Block& b, Unpacked<256, 32>& u) {
  uint32_t word[3];
  std::memcpy(word, b.scales, sizeof word);
  const uint32_t packed[4] = {word[0] & 0x3F3F3F3F, (word[2] & 0x0F0F0F0F) | ((word[0] >> 2) & 0x30303030),
                              word[1] & 0x3F3F3F3F, ((word[2] >> 4) & 0x0F0F0F0F) | ((word[1] >> 2) & 0x30303030)};
  uint8_t six_bits[16];
  std::memcpy(six_bits, packed, sizeof six_bits);
  const float scale = read_f16(b.d), offset = read_f16(b.dmin);
  for (size_t g = 0; g < 8; ++g) {
    u.scale[g] = scale * static_cast<float>(six_bits[g]);
    u.offset[g] = offset * static_cast<float>(six_bits[g + 8]);
  }
}

// Byte l of quarter k holds elements l (low) and l + 32 (high) of that quarter.
inline Unpacked<256, 32> unpack(const BlockQ4_K& b) {
  const hn::CappedTag<uint8_t, 32> d;
  Unpacked<256, 32> u;
  for (size_t k = 0; k < 4; ++k)
    for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
      const auto q = hn::LoadU(d, b.qs + 32 * k + l);
      hn::StoreU(field(d, q, 0, 15), d, u.code + 64 * k + l);
      hn::StoreU(field(d, q, 4, 15), d, u.code + 64 * k + 32 + l);
    }
  read_scales_and_offsets(b, u);
  return u;
}

// As Q4_K, with a fifth bit in qh: bits 2k and 2k + 1 of byte l.
inline Unpacked<256, 32> unpack(const BlockQ5_K& b) {
  const hn::CappedTag<uint8_t, 32> d;
  Unpacked<256, 32> u;
  for (size_t k = 0; k < 4; ++k)
    for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
      const auto q = hn::LoadU(d, b.qs + 32 * k + l), high = hn::LoadU(d, b.qh + l);
      const int bit = 2 * static_cast<int>(k);
      hn::StoreU(hn::Or(field(d, q, 0, 15), flag(d, high, bit, 16)), d, u.code + 64 * k + l);
      hn::StoreU(hn::Or(field(d, q, 4, 15), flag(d, high, bit + 1, 16)), d, u.code + 64 * k + 32 + l);
    }
  read_scales_and_offsets(b, u);
  return u;
}

// Half h: element l + 32k has its low nibble in ql[l + 32(k % 2)], shifted by 4(k / 2), and two bits in qh[l].
inline Unpacked<256, 16> unpack(const BlockQ6_K& b) {
  const hn::CappedTag<uint8_t, 32> d;
  Unpacked<256, 16> u;
  for (size_t h = 0; h < 2; ++h)
    for (size_t l = 0; l < 32; l += hn::Lanes(d)) {
      const auto high = hn::LoadU(d, b.qh + 32 * h + l);
      for (size_t k = 0; k < 4; ++k) {
        const auto low = hn::LoadU(d, b.ql + 64 * h + 32 * (k % 2) + l);
        const auto two = field(d, high, 2 * static_cast<int>(k), 3);
        const auto code = hn::Or(field(d, low, 4 * static_cast<int>(k / 2), 15), hn::ShiftLeft<4>(two));
        hn::StoreU(hn::Sub(code, hn::Set(d, 32)), d, u.code + 128 * h + 32 * k + l);
      }
    }
  const float scale = read_f16(b.d);
  for (size_t g = 0; g < 16; ++g) u.scale[g] = scale * static_cast<float>(static_cast<int8_t>(b.scales[g]));
  return u;
}

template <class Block, class Target>
void decode_blocks(const Task<Target>& task) {
  using Codes = decltype(unpack(std::declval<const Block&>()));
  const hn::Rebind<uint8_t, Floats> d8;
  const hn::Rebind<int8_t, Floats> di8;
  const auto scale = hn::Set(df, task.scale);
  const auto* block = reinterpret_cast<const Block*>(task.bytes);
  for (auto* out = task.out; out != task.out + task.count; out += Codes::kElements, ++block) {
    const Codes u = unpack(*block);
    for (size_t i = 0; i < Codes::kElements; i += hn::Lanes(df)) {
      const size_t group = i / Codes::kGroup;
      const auto code = hn::ConvertTo(df, hn::PromoteTo(di, hn::BitCast(di8, hn::LoadU(d8, u.code + i))));
      const auto value = hn::MulSub(hn::Set(df, u.scale[group]), code, hn::Set(df, u.offset[group]));
      Target::store(hn::Mul(value, scale), out + i);
    }
  }
}

template <class Target>
void decode_any(TensorType type, const Task<Target>& task) {
  switch (type) {
    case TensorType::f64: return decode_plain<FromF64>(task);
    case TensorType::f32: return decode_plain<FromF32>(task);
    case TensorType::f16: return decode_plain<FromSmall<F16>>(task);
    case TensorType::bf16: return decode_plain<FromBf16>(task);
    case TensorType::f8_e4m3: return decode_plain<FromSmall<F8E4M3>>(task);
    case TensorType::f8_e5m2: return decode_plain<FromSmall<F8E5M2>>(task);
    case TensorType::q4_0: return decode_blocks<BlockQ4_0>(task);
    case TensorType::q4_1: return decode_blocks<BlockQ4_1>(task);
    case TensorType::q5_0: return decode_blocks<BlockQ5_0>(task);
    case TensorType::q5_1: return decode_blocks<BlockQ5_1>(task);
    case TensorType::q8_0: return decode_blocks<BlockQ8_0>(task);
    case TensorType::q2_k: return decode_blocks<BlockQ2_K>(task);
    case TensorType::q3_k: return decode_blocks<BlockQ3_K>(task);
    case TensorType::q4_k: return decode_blocks<BlockQ4_K>(task);
    case TensorType::q5_k: return decode_blocks<BlockQ5_K>(task);
    case TensorType::q6_k: return decode_blocks<BlockQ6_K>(task);
    default: return;  // checked before the dispatch
  }
}

// What the dispatch tables hold.
void to_f32(TensorType type, const uint8_t* bytes, size_t count, float scale, float* out) {
  decode_any<ToF32>(type, {bytes, count, scale, out});
}
void to_bf16(TensorType type, const uint8_t* bytes, size_t count, float scale, uint16_t* out) {
  decode_any<ToBf16>(type, {bytes, count, scale, out});
}
void to_f16(TensorType type, const uint8_t* bytes, size_t count, float scale, uint16_t* out) {
  decode_any<ToSmall<F16>>(type, {bytes, count, scale, out});
}
void to_e4m3(std::span<const float> values, uint8_t* out) {
  decode_plain<FromF32, ToSmall<F8E4M3>>({reinterpret_cast<const uint8_t*>(values.data()), values.size(), 1.0F, out});
}
void to_e5m2(std::span<const float> values, uint8_t* out) {
  decode_plain<FromF32, ToSmall<F8E5M2>>({reinterpret_cast<const uint8_t*>(values.data()), values.size(), 1.0F, out});
}

}  // namespace
}  // namespace calotype::weights::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace calotype::weights {
namespace {

HWY_EXPORT(to_f32);
HWY_EXPORT(to_bf16);
HWY_EXPORT(to_f16);
HWY_EXPORT(to_e4m3);
HWY_EXPORT(to_e5m2);

const uint8_t* checked(files::TensorType type, std::span<const std::byte> bytes, size_t count) {
  using base::ErrorKind;
  base::check(files::is_real(type), ErrorKind::unsupported, "{} numbers cannot be decoded as weights",
              files::name(type));
  const auto expected = files::bytes_of(type, count);
  base::check(expected.has_value(), ErrorKind::internal, "{} numbers are no whole number of {} blocks of {}", count,
              files::name(type), files::traits(type).block);
  base::check(bytes.size() == *expected, ErrorKind::internal, "{} numbers of type {} take {} bytes, got {}", count,
              files::name(type), *expected, bytes.size());
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

}  // namespace

void decode_f32(files::TensorType type, std::span<const std::byte> bytes, std::span<float> out, float scale) {
  HWY_DYNAMIC_DISPATCH(to_f32)(type, checked(type, bytes, out.size()), out.size(), scale, out.data());
}

void decode_bf16(files::TensorType type, std::span<const std::byte> bytes, std::span<uint16_t> out, float scale) {
  HWY_DYNAMIC_DISPATCH(to_bf16)(type, checked(type, bytes, out.size()), out.size(), scale, out.data());
}

void decode_f16(files::TensorType type, std::span<const std::byte> bytes, std::span<uint16_t> out, float scale) {
  HWY_DYNAMIC_DISPATCH(to_f16)(type, checked(type, bytes, out.size()), out.size(), scale, out.data());
}

void encode_e4m3(std::span<const float> values, std::span<uint8_t> out) {
  HWY_DYNAMIC_DISPATCH(to_e4m3)(values, out.data());
}

void encode_e5m2(std::span<const float> values, std::span<uint8_t> out) {
  HWY_DYNAMIC_DISPATCH(to_e5m2)(values, out.data());
}

}  // namespace calotype::weights
#endif  // HWY_ONCE
