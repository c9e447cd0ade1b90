// Values: gguf 0.19 and torch 2.13, tools/reference/quant.py. Bits are compared, NaN only with NaN.
#include "weights/quant.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "files/tensor_file.h"

namespace calotype::weights {
namespace {

using files::TensorType;
using enum files::TensorType;

constexpr TensorType kReal[] = {f64,  f32,  f16,  bf16, f8_e4m3, f8_e5m2, q4_0, q4_1,
                                q5_0, q5_1, q8_0, q2_k, q3_k,    q4_k,    q5_k, q6_k};
constexpr TensorType kBlocks[] = {q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k};
constexpr TensorType kSimpleBlocks[] = {q4_0, q4_1, q5_0, q5_1, q8_0};
constexpr TensorType kKQuants[] = {q2_k, q3_k, q4_k, q5_k, q6_k};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <typename T>
std::vector<T> golden(const std::string& name) {
  static const files::TensorFile file = files::open_tensor_file(CALOTYPE_SOURCE_DIR "/tests/golden/quant.safetensors");
  for (const auto& tensor : file.tensors)
    if (tensor.name == name) {
      std::vector<T> values(tensor.bytes.size() / sizeof(T));
      std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
      return values;
    }
  ADD_FAILURE() << "no golden tensor " << name;
  return {};
}

std::string name_of(TensorType type) { return std::string(files::name(type)); }

std::vector<float> decoded(TensorType type, std::span<const std::byte> bytes, size_t count, float scale = 1) {
  std::vector<float> out(count);
  decode_f32(type, bytes, out, scale);
  return out;
}

std::vector<uint16_t> decoded_bf16(TensorType type, std::span<const std::byte> bytes, size_t count) {
  std::vector<uint16_t> out(count);
  decode_bf16(type, bytes, out);
  return out;
}

std::vector<uint16_t> decoded_f16(TensorType type, std::span<const std::byte> bytes, size_t count) {
  std::vector<uint16_t> out(count);
  decode_f16(type, bytes, out);
  return out;
}

std::vector<std::byte> encoded(TensorType type, std::span<const float> values) {
  std::vector<std::byte> bytes(*files::bytes_of(type, values.size()));
  encode(type, values, bytes);
  return bytes;
}

void expect_same_bits(std::span<const float> got, std::span<const float> expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(expected[i]) && std::isnan(got[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(expected[i]))
        << "element " << i << ": " << got[i] << ", expected " << expected[i];
  }
}

// Runs the test once with every instruction set that this machine has, the scalar fallback included.
template <typename Test>
void on_every_target(Test test) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    test();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST(QuantDecode, BlocksEqualGguf) {
  on_every_target([] {
    for (const TensorType type : kBlocks) {
      SCOPED_TRACE(name_of(type));
      const auto expected = golden<float>(name_of(type) + ".f32");
      expect_same_bits(decoded(type, golden<std::byte>(name_of(type) + ".bytes"), expected.size()), expected);
    }
  });
}

TEST(QuantDecode, EveryFp8ByteEqualsTorch) {
  std::vector<std::byte> all(256);
  for (size_t i = 0; i < 256; ++i) all[i] = static_cast<std::byte>(i);
  on_every_target([&] {
    expect_same_bits(decoded(f8_e4m3, all, 256), golden<float>("f8_e4m3.f32"));
    expect_same_bits(decoded(f8_e5m2, all, 256), golden<float>("f8_e5m2.f32"));
  });
}

// Oracle: the definition of binary16 (IEEE 754).
TEST(QuantDecode, EveryF16EqualsItsDefinition) {
  std::vector<uint16_t> all(65536);
  std::iota(all.begin(), all.end(), uint16_t{0});
  std::vector<float> expected(all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const int exponent = (all[i] >> 10) & 31, mantissa = all[i] & 1023;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    if (exponent == 31) value = mantissa == 0 ? kInfinity : std::nanf("");
    expected[i] = std::copysign(value, (all[i] & 0x8000) != 0 ? -1.0F : 1.0F);
  }
  on_every_target([&] { expect_same_bits(decoded(f16, std::as_bytes(std::span(all)), all.size()), expected); });
}

TEST(QuantDecode, Bf16AndF64EqualTheirDefinition) {
  std::vector<uint16_t> all(65536);
  std::iota(all.begin(), all.end(), uint16_t{0});
  std::vector<float> expected(all.size());
  for (size_t i = 0; i < all.size(); ++i) expected[i] = std::bit_cast<float>(static_cast<uint32_t>(all[i]) << 16);
  const std::vector<double> doubles = {1.0 / 3, -1e-310, 1e300, -0.0, 1 + std::ldexp(1, -24), 1 + std::ldexp(3, -24)};
  on_every_target([&] {
    expect_same_bits(decoded(bf16, std::as_bytes(std::span(all)), all.size()), expected);
    expect_same_bits(decoded(f64, std::as_bytes(std::span(doubles)), doubles.size()),
                     std::vector<float>{1.0F / 3, -0.0F, kInfinity, -0.0F, 1.0F, 1 + std::ldexp(1.0F, -22)});
  });
}

// Half numbers made from f32, then from every other type through f32: one rounding, of the f32 result.
TEST(QuantDecode, HalvesAreRoundedAsTorchRounds) {
  const auto values = golden<float>("round.f32");
  const auto bytes = std::as_bytes(std::span(values));
  const auto expect_halves = [&](const std::vector<uint16_t>& got, const std::vector<uint16_t>& expected,
                                 int infinity) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i]))
        EXPECT_GT(got[i] & 0x7FFF, infinity) << "NaN became a number";
      else
        ASSERT_EQ(got[i], expected[i]) << "element " << i << ": " << values[i];
    }
  };
  on_every_target([&] {
    expect_halves(decoded_bf16(f32, bytes, values.size()), golden<uint16_t>("round.bf16"), 0x7F80);
    expect_halves(decoded_f16(f32, bytes, values.size()), golden<uint16_t>("round.f16"), 0x7C00);
    for (const TensorType type : kBlocks) {
      const auto full = golden<float>(name_of(type) + ".f32");
      const auto block_bytes = golden<std::byte>(name_of(type) + ".bytes");
      const auto full_bytes = std::as_bytes(std::span(full));
      EXPECT_EQ(decoded_bf16(type, block_bytes, full.size()), decoded_bf16(f32, full_bytes, full.size()));
      EXPECT_EQ(decoded_f16(type, block_bytes, full.size()), decoded_f16(f32, full_bytes, full.size()));
    }
  });
}

// Values: worked out from the description of the formats, without gguf. All are multiples of 2^-7, so sums are exact.
TEST(QuantDecode, MatchesBlocksFilledByFormula) {
  struct Row {
    TensorType type;
    const char* name;
    std::vector<size_t> d, m, dmin;
    std::vector<float> first;
    double sum, sum_of_magnitudes;
  };
  const Row rows[] = {
      {q4_0, "ggml.Q4_0", {0}, {}, {}, {.375F, .4375F, 0, -.5F}, -1, 8.125},
      {q4_1, "ggml.Q4_1", {0}, {2}, {}, {.3125F, .5625F, .625F, .5F}, 6.125, 8.25},
      {q5_0, "ggml.Q5_0", {0}, {}, {}, {.875F, -.125F, .8125F, .5625F}, -2.125, 16.875},
      {q5_1, "ggml.Q5_1", {0}, {2}, {}, {.625F, 1.1875F, .8125F, .625F}, 19.75, 21.75},
      {q8_0, "ggml.Q8_0", {0}, {}, {}, {4.125F, -4.6875F, 7.3125F, 3.125F}, 11.25, 137.625},
      {q2_k, "ggml.Q2_K", {80}, {}, {82}, {.28125F, 1.53125F, .28125F, -.34375F}, 88.8125, 120.4375},
      {q3_k, "ggml.Q3_K", {108}, {}, {}, {-5.4375F, -3.625F, -1.8125F, -7.25F}, -70.4375, 616.9375},
      {q4_k, "ggml.Q4_K", {0}, {}, {2}, {10.625F, 16.125F, 2.375F, 9.25F}, 4897.6875, 4923.1875},
      {q5_k, "ggml.Q5_K", {0}, {}, {2}, {33.28125F, 50.15625F, 19.78125F, 26.53125F}, 6235.5, 6263.4375},
      {q6_k, "ggml.Q6_K", {208}, {}, {}, {39.375F, 33.75F, -46.875F, 0}, 294.9375, 12388.1875},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    uint32_t hash = 2166136261U;  // FNV-1a
    for (const char* c = row.name; *c != 0; ++c) hash = (hash ^ static_cast<unsigned char>(*c)) * 16777619U;
    std::vector<std::byte> bytes(static_cast<size_t>(files::traits(row.type).block_bytes));
    for (uint32_t i = 0; i < bytes.size(); ++i) {
      uint32_t x = hash + i * 2654435761U;  // then the finaliser of MurmurHash3
      x = (x ^ x >> 16) * 0x85EBCA6BU;
      x = (x ^ x >> 13) * 0xC2B2AE35U;
      bytes[i] = static_cast<std::byte>((x ^ x >> 16) >> 24);
    }
    const auto put = [&](const std::vector<size_t>& at, uint16_t half) {
      for (const size_t offset : at) std::memcpy(bytes.data() + offset, &half, 2);
    };
    put(row.d, 0x2C00);
    put(row.m, 0xB400);
    put(row.dmin, 0x2800);
    const auto values = decoded(row.type, bytes, static_cast<size_t>(files::traits(row.type).block));
    EXPECT_EQ(std::vector(values.begin(), values.begin() + 4), row.first);
    double sum = 0, magnitudes = 0;
    for (const float value : values) {
      sum += value;
      magnitudes += std::abs(value);
    }
    EXPECT_EQ(sum, row.sum);
    EXPECT_EQ(magnitudes, row.sum_of_magnitudes);
  }
}

TEST(QuantDecode, ScaleMultipliesTheF32Value) {
  const float scale = 0.0371F;
  on_every_target([&] {
    for (const TensorType type : kReal) {
      SCOPED_TRACE(name_of(type));
      std::vector<std::byte> bytes(*files::bytes_of(type, 512));
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>((i * 37) & 0x3B);
      auto expected = decoded(type, bytes, 512);
      for (float& value : expected) value *= scale;
      expect_same_bits(decoded(type, bytes, 512, scale), expected);
    }
  });
}

// Every address, and for plain types every length around the vectors' sizes; the sanitizers watch the ends.
TEST(QuantDecode, AnyAlignmentAndLength) {
  on_every_target([] {
    for (const TensorType type : kReal) {
      SCOPED_TRACE(name_of(type));
      const size_t most = files::is_block(type) ? 512 : 70, step = static_cast<size_t>(files::traits(type).block);
      std::vector<std::byte> bytes(*files::bytes_of(type, most));
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>((i * 37) & 0x3B);
      const auto expected = decoded(type, bytes, most);
      for (size_t count = 0; count <= most; count += step) {
        const size_t size = *files::bytes_of(type, count), shift = count / step % 8;
        std::vector<std::byte> moved(size + shift);
        std::copy_n(bytes.begin(), size, moved.begin() + static_cast<std::ptrdiff_t>(shift));
        expect_same_bits(decoded(type, std::span(moved).subspan(shift), count), std::span(expected).first(count));
        decoded_bf16(type, std::span(moved).subspan(shift), count);
      }
    }
  });
}

TEST(QuantDecode, NonFiniteScalesGiveNonFiniteNumbers) {
  for (const TensorType type : kBlocks) {
    SCOPED_TRACE(name_of(type));
    const auto count = static_cast<size_t>(files::traits(type).block);
    for (const float value : decoded(type, std::vector(*files::bytes_of(type, count), std::byte{0x7F}), count))
      EXPECT_TRUE(std::isnan(value));  // every f16 is 0x7F7F
  }
}

TEST(QuantDecode, WrongSizesAndTypesAreErrors) {
  std::vector<std::byte> bytes(68);
  std::vector<float> out(64);
  EXPECT_NO_THROW(decode_f32(q8_0, bytes, out));
  EXPECT_THROW(decode_f32(q8_0, std::span(bytes).first(67), out), base::Error);
  EXPECT_THROW(decode_f32(q8_0, bytes, std::span(out).first(63)), base::Error);
  EXPECT_THROW(decode_f32(i8, std::span(bytes).first(64), out), base::Error);
}

TEST(QuantEncode, SimpleBlocksEqualGguf) {
  const auto values = golden<float>("encode.f32");
  for (const TensorType type : kSimpleBlocks) {
    SCOPED_TRACE(name_of(type));
    EXPECT_EQ(encoded(type, values), golden<std::byte>("encode." + name_of(type)));
  }
}

TEST(QuantEncode, PlainTypesRoundAsTorch) {
  const auto values = golden<float>("round.f32");
  on_every_target([&] {
    const auto e5m2 = encoded(f8_e5m2, values), expected_e5m2 = golden<std::byte>("round.f8_e5m2");
    const auto e4m3 = encoded(f8_e4m3, values), expected_e4m3 = golden<std::byte>("round.f8_e4m3");
    for (size_t i = 0; i < values.size(); ++i) {
      SCOPED_TRACE(values[i]);
      if (std::isnan(values[i])) {
        EXPECT_TRUE(std::isnan(decoded(f8_e5m2, std::span(e5m2).subspan(i, 1), 1)[0]));
        EXPECT_TRUE(std::isnan(decoded(f8_e4m3, std::span(e4m3).subspan(i, 1), 1)[0]));
        continue;
      }
      ASSERT_EQ(e5m2[i], expected_e5m2[i]);
      // Torch turns numbers that round to more than 448 into NaN; we keep the largest number.
      const auto largest = static_cast<std::byte>(std::signbit(values[i]) ? 0xFE : 0x7E);
      ASSERT_EQ(e4m3[i], std::abs(values[i]) > 448 ? largest : expected_e4m3[i]);
    }
  });
  const auto bytes = std::as_bytes(std::span(values));
  EXPECT_TRUE(std::ranges::equal(encoded(f32, values), bytes));
  const auto bf16s = decoded_bf16(f32, bytes, values.size()), f16s = decoded_f16(f32, bytes, values.size());
  EXPECT_TRUE(std::ranges::equal(encoded(bf16, values), std::as_bytes(std::span(bf16s))));
  EXPECT_TRUE(std::ranges::equal(encoded(f16, values), std::as_bytes(std::span(f16s))));
}

double rmse(TensorType type, std::span<const float> values) {
  const auto got = decoded(type, encoded(type, values), values.size());
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) sum += std::pow(static_cast<double>(got[i]) - values[i], 2);
  return std::sqrt(sum / static_cast<double>(got.size()));
}

// Reference: the same format filled by rounding between minimum and maximum, and gguf's simple types of the same bits.
TEST(QuantEncode, KQuantsAreBetterThanSimpleRounding) {
  const auto values = golden<float>("weights.f32");
  for (size_t row = 0; row < 2; ++row) {
    const auto x = std::span(values).subspan(row * values.size() / 2, values.size() / 2);
    for (const TensorType type : kKQuants) {
      const double simple = golden<double>("rmse." + name_of(type))[row], ours = rmse(type, x);
      RecordProperty(name_of(type) + "_row" + std::to_string(row), std::to_string(ours / simple));
      EXPECT_LT(ours, simple) << name_of(type) << ", row " << row;
    }
    EXPECT_LT(rmse(q4_k, x), golden<double>("rmse.q4_0")[row]);
    EXPECT_LT(rmse(q5_k, x), golden<double>("rmse.q5_0")[row]);
  }
}

// Codes above zero (or on its wider side) that a type has.
struct Steps {
  TensorType type;
  float count;
};
constexpr Steps kSteps[] = {{q2_k, 3}, {q3_k, 4}, {q4_k, 15}, {q5_k, 31}, {q6_k, 32}};

// A step is the block's range divided by the codes: half of one is lost to rounding, and a line that leaves out the
// largest number of its group to come closer to the others must not lose more than the other half.
TEST(QuantEncode, NoNumberIsFartherOffThanAStep) {
  const auto values = golden<float>("weights.f32");
  for (const auto& [type, steps] : kSteps) {
    const auto got = decoded(type, encoded(type, values), values.size());
    for (size_t i = 0; i < values.size(); i += 256) {
      const auto block = std::span(values).subspan(i, 256);
      const float range = *std::ranges::max_element(block) - *std::ranges::min_element(block);
      for (size_t k = 0; k < 256; ++k) EXPECT_LE(std::abs(got[i + k] - block[k]), range / steps) << files::name(type);
    }
  }
}

TEST(QuantEncode, KQuantsOfUnusualBlocks) {
  std::vector<float> spike(256), positive(256), negative(256);
  spike[77] = -3;
  for (size_t i = 0; i < 256; ++i) {
    positive[i] = static_cast<float>(i % 16);
    negative[i] = -1 - static_cast<float>(i % 7);
  }
  for (const auto& [type, steps] : kSteps) {
    SCOPED_TRACE(name_of(type));
    for (const float tiny : {0.0F, 1e-30F})
      for (const float value : decoded(type, encoded(type, std::vector<float>(256, tiny)), 256)) EXPECT_EQ(value, 0);
    // 1e-5 is 168 times the smallest f16 number: the integers have to make up for the coarse scale.
    for (const float constant : {65504.0F, -65504.0F, 0.02F, -1e-5F})
      for (const float value : decoded(type, encoded(type, std::vector<float>(256, constant)), 256))
        EXPECT_NEAR(value, constant, std::abs(constant) * 0.02F);
    const auto got = decoded(type, encoded(type, spike), 256);
    for (size_t i = 0; i < 256; ++i) EXPECT_NEAR(got[i], spike[i], 3e-3F);  // f16 scales: 2^-11 of 3
    // A line from zero to the largest number has this error if the numbers are spread evenly.
    EXPECT_LT(rmse(type, positive), 15 / steps / std::sqrt(12.0));
    EXPECT_LT(rmse(type, negative), 7 / steps / std::sqrt(12.0));
  }
}

// Numbers so small that the inverse of their scale overflows.
TEST(QuantEncode, SubnormalNumbersBecomeZero) {
  std::vector<float> values(256);
  for (size_t i = 0; i < 256; ++i) values[i] = 1e-45F * static_cast<float>(i % 9);
  for (const TensorType type : kBlocks)
    for (const float value : decoded(type, encoded(type, values), 256)) EXPECT_EQ(value, 0) << files::name(type);
}

TEST(QuantEncode, RefusesWhatATypeCannotHold) {
  std::vector<float> values(256);
  std::vector<std::byte> bytes(*files::bytes_of(q4_k, 256));
  for (const float bad : {std::nanf(""), kInfinity, -65505.0F}) {
    values[200] = bad;
    try {
      encode(q4_k, values, bytes);
      FAIL() << bad << " was accepted";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.kind(), base::ErrorKind::bad_input);
      EXPECT_NE(std::string(error.what()).find("number 200"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(encode(q4_k, std::span(values).first(255), bytes), base::Error);
  EXPECT_THROW(encode(q8_0, values, bytes), base::Error);
  EXPECT_THROW(encode(f64, values, bytes), base::Error);
  EXPECT_THROW(encode(u8, values, bytes), base::Error);
}

}  // namespace
}  // namespace calotype::weights
