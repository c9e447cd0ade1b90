// Encoding of the k-quants: 256 numbers as y = (d·scale[g])·code − (dmin·offset[g]), where every group g of 16 or 32
// numbers has small integers for scale and offset. Three steps make the squared error small: the best line for each
// group on its own, integers for it, then alternately the integers next to them and d and dmin by least squares.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "weights/quant_blocks.h"

namespace calotype::weights {
namespace {

constexpr size_t kElements = 256;

// The integers that a type can hold. Types without offsets have codes of both signs.
struct Grid {
  float code_min, code_max;
  float scale_min, scale_max;
  float offset_max;
};

struct Line {
  float scale, offset;  // y = scale·code − offset
};

// Sums over one group and its codes.
struct Sums {
  double n, x, xx, q, qq, xq;

  double error(Line l) const {
    const double s = l.scale, o = l.offset;
    return xx + s * s * qq + o * o * n + 2 * (o * x - s * xq - s * o * q);
  }
};

// Four lanes exist on every CPU, so a file does not depend on the machine that wrote it.
using Four = float __attribute__((vector_size(16)));

template <size_t kGroup>
struct Group {
  const float* x = nullptr;
  double sum = 0, sum_of_squares = 0;

  Group() = default;
  explicit Group(const float* values) : x(values) {
    for (size_t i = 0; i < kGroup; ++i) {
      sum += x[i];
      sum_of_squares += static_cast<double>(x[i]) * x[i];
    }
  }

  // The nearest code of every number for this line.
  Sums round_to(Line line, const Grid& grid, float* codes) const {
    constexpr float kRound = 12582912.0F;  // 1.5·2^23: adding it leaves the nearest integer
    const float inverse = line.scale == 0 ? 0.0F : 1.0F / line.scale;
    const Four lowest = Four{} + grid.code_min, highest = Four{} + grid.code_max;
    Four q = {}, qq = {}, xq = {};
    for (size_t i = 0; i < kGroup; i += 4) {
      Four numbers;
      std::memcpy(&numbers, x + i, sizeof numbers);
      const Four exact = (numbers + line.offset) * inverse;
      const Four above = exact > lowest ? exact : lowest;
      const Four bounded = above < highest ? above : highest;
      const Four code = (bounded + kRound) - kRound;
      std::memcpy(codes + i, &code, sizeof code);
      q += code;
      qq += code * code;
      xq += numbers * code;
    }
    const auto total = [](Four lanes) { return double{(lanes[0] + lanes[1]) + (lanes[2] + lanes[3])}; };
    return {kGroup, sum, sum_of_squares, total(q), total(qq), total(xq)};
  }
};

// The least-squares line through the codes; its offset must not be negative.
Line regression(const Sums& s, bool with_offset) {
  if (with_offset) {
    const double determinant = s.n * s.qq - s.q * s.q;
    if (determinant > 0) {
      const double scale = (s.n * s.xq - s.x * s.q) / determinant, offset = (scale * s.q - s.x) / s.n;
      if (offset >= 0) return {static_cast<float>(scale), static_cast<float>(offset)};
    } else if (s.x < 0) {
      return {0, static_cast<float>(-s.x / s.n)};
    }
  }
  return {s.qq > 0 ? static_cast<float>(s.xq / s.qq) : 0.0F, 0};
}

// The best line that is free of the super-block's integers. Rounding between the extremes is where the search starts;
// stretching the line past them costs the largest numbers some accuracy and often gives all others more.
template <size_t kGroup>
Line fit_line(const Group<kGroup>& group, const Grid& grid) {
  const auto [lowest, highest] = std::minmax_element(group.x, group.x + kGroup);
  const bool with_offset = grid.offset_max > 0;
  const float base = with_offset ? std::min(0.0F, *lowest) : 0.0F;
  const float top = with_offset || *highest > -*lowest ? *highest : *lowest;
  // Codes reach further below zero than above, so the extreme number gets the lowest code.
  const float steps = with_offset ? grid.code_max : grid.code_min;

  Line best = {0, -base};
  float codes[kGroup];
  double least = std::numeric_limits<double>::infinity();
  for (int stretch = -6; stretch <= 6; ++stretch) {
    const float size = std::abs(steps) + 0.2F * static_cast<float>(stretch);
    const Line guess = {(top - base) / std::copysign(size, steps), -base};
    const Sums sums = group.round_to(guess, grid, codes);
    const Line line = regression(sums, with_offset);
    const double error = sums.error(line);
    if (error < least) {
      least = error;
      best = line;
    }
  }
  return best;
}

template <size_t kGroup>
struct SuperBlock {
  static constexpr size_t kGroups = kElements / kGroup;
  float d, dmin;                             // f16 numbers
  std::array<float, kGroups> scale, offset;  // integers
  std::array<float, kElements> code;         // integers
  std::array<Sums, kGroups> sums;
  double error = std::numeric_limits<double>::infinity();

  void set_multipliers(double new_d, double new_dmin) {
    uint8_t bytes[2];
    d = write_f16(static_cast<float>(new_d), bytes);
    dmin = write_f16(static_cast<float>(new_dmin), bytes);
  }
};

// Subnormal f16 numbers are multiples of 2^-24. Rounding down to one may be far off and would leave the largest scale
// beyond the integers' reach; the integers make up for rounding up.
double round_up_subnormal(double multiplier) {
  const double magnitude = std::abs(multiplier);
  return magnitude < 0x1p-14 ? std::copysign(std::ceil(magnitude * 0x1p24) * 0x1p-24, multiplier) : multiplier;
}

// Each line becomes the nearest integers that `grid` has.
template <size_t kGroup>
void start(SuperBlock<kGroup>& b, const std::array<Line, SuperBlock<kGroup>::kGroups>& lines, const Grid& grid) {
  float top = 0, top_offset = 0;
  for (const Line& line : lines) {
    if (std::abs(line.scale) > std::abs(top)) top = line.scale;
    top_offset = std::max(top_offset, line.offset);
  }
  const bool with_offset = grid.offset_max > 0;
  b.set_multipliers(round_up_subnormal(top / (grid.scale_min < 0 ? grid.scale_min : grid.scale_max)),
                    round_up_subnormal(with_offset ? top_offset / grid.offset_max : 0.0F));
  for (size_t g = 0; g < b.kGroups; ++g) {
    const float scale = b.d == 0 ? 0 : std::round(lines[g].scale / b.d);
    const float offset = b.dmin == 0 ? 0 : std::round(lines[g].offset / b.dmin);
    b.scale[g] = std::clamp(scale, grid.scale_min, grid.scale_max);
    b.offset[g] = std::clamp(offset, 0.0F, grid.offset_max);
  }
}

// Moves each group's integers by at most one, to the pair with the least error; sets codes, sums and error.
template <size_t kGroup>
void improve_integers(SuperBlock<kGroup>& b, const std::array<Group<kGroup>, SuperBlock<kGroup>::kGroups>& groups,
                      const Grid& grid) {
  b.error = 0;
  for (size_t g = 0; g < b.kGroups; ++g) {
    const float scale = b.scale[g], offset = b.offset[g];
    double least = std::numeric_limits<double>::infinity();
    for (float o = std::max(0.0F, offset - 1); o <= std::min(grid.offset_max, offset + 1); ++o)
      for (float s = std::max(grid.scale_min, scale - 1); s <= std::min(grid.scale_max, scale + 1); ++s) {
        float codes[kGroup];
        const Line line = {b.d * s, b.dmin * o};
        const Sums sums = groups[g].round_to(line, grid, codes);
        const double error = sums.error(line);
        if (!(error < least)) continue;
        least = error;
        b.scale[g] = s;
        b.offset[g] = o;
        b.sums[g] = sums;
        std::memcpy(&b.code[g * kGroup], codes, sizeof codes);
      }
    b.error += least;
  }
}

// d and dmin that are best for the integers as they are.
template <size_t kGroup>
void improve_multipliers(SuperBlock<kGroup>& b) {
  double ss = 0, so = 0, oo = 0, sx = 0, ox = 0;
  for (size_t g = 0; g < b.kGroups; ++g) {
    const double scale = b.scale[g], offset = b.offset[g];
    ss += scale * scale * b.sums[g].qq;
    so += scale * offset * b.sums[g].q;
    oo += offset * offset * b.sums[g].n;
    sx += scale * b.sums[g].xq;
    ox += offset * b.sums[g].x;
  }
  const double determinant = ss * oo - so * so;
  if (determinant > 0)
    b.set_multipliers((sx * oo - so * ox) / determinant, (sx * so - ss * ox) / determinant);
  else if (oo == 0 && ss > 0)
    b.set_multipliers(sx / ss, 0);
}

template <size_t kGroup>
SuperBlock<kGroup> fit(const float* values, const Grid& grid) {
  constexpr size_t kGroups = SuperBlock<kGroup>::kGroups;
  std::array<Group<kGroup>, kGroups> groups;
  std::array<Line, kGroups> lines;
  for (size_t g = 0; g < kGroups; ++g) {
    groups[g] = Group<kGroup>(values + g * kGroup);
    lines[g] = fit_line(groups[g], grid);
  }

  SuperBlock<kGroup> best, trial;
  start(trial, lines, grid);
  for (int round = 0; round < 3; ++round) {
    improve_integers(trial, groups, grid);
    if (!(trial.error < best.error)) break;  // rounding d to f16 may undo what it gained
    best = trial;
    improve_multipliers(trial);
  }
  return best;
}

// ---- Layouts, as quant_decode.cpp reads them ------------------------------------------------------------------------

uint8_t byte(float integer) { return static_cast<uint8_t>(static_cast<int>(integer)); }

template <size_t kGroup>
std::array<uint8_t, kElements> codes_of(const SuperBlock<kGroup>& s, int zero) {
  std::array<uint8_t, kElements> codes;
  for (size_t i = 0; i < kElements; ++i) codes[i] = static_cast<uint8_t>(static_cast<int>(s.code[i]) + zero);
  return codes;
}

void pack_two_bits(const std::array<uint8_t, kElements>& codes, uint8_t (&qs)[64]) {
  for (size_t i = 0; i < 64; ++i) {
    const uint8_t* c = &codes[i / 32 * 128 + i % 32];
    qs[i] = static_cast<uint8_t>((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
  }
}

void pack_four_bits(const std::array<uint8_t, kElements>& codes, uint8_t (&qs)[128]) {
  for (size_t i = 0; i < 128; ++i) {
    const uint8_t* c = &codes[i / 32 * 64 + i % 32];
    qs[i] = static_cast<uint8_t>((c[0] & 15) | (c[32] & 15) << 4);
  }
}

// Eight scales and eight offsets of six bits, see read_scales_and_offsets().
void pack_six_bits(const SuperBlock<32>& s, uint8_t (&packed)[12]) {
  for (size_t g = 0; g < 4; ++g) {
    const unsigned scale = byte(s.scale[g + 4]), offset = byte(s.offset[g + 4]);
    packed[g] = static_cast<uint8_t>(byte(s.scale[g]) | (scale >> 4) << 6);
    packed[g + 4] = static_cast<uint8_t>(byte(s.offset[g]) | (offset >> 4) << 6);
    packed[g + 8] = static_cast<uint8_t>((scale & 15) | (offset & 15) << 4);
  }
}

}  // namespace

void encode_block(const float* values, BlockQ2_K& b) {
  const auto s = fit<16>(values, {0, 3, 0, 15, 15});
  write_f16(s.d, b.d);
  write_f16(s.dmin, b.dmin);
  for (size_t g = 0; g < 16; ++g) b.scales[g] = static_cast<uint8_t>(byte(s.scale[g]) | byte(s.offset[g]) << 4);
  pack_two_bits(codes_of(s, 0), b.qs);
}

void encode_block(const float* values, BlockQ3_K& b) {
  const auto s = fit<16>(values, {-4, 3, -32, 31, 0});
  write_f16(s.d, b.d);
  std::memset(b.scales, 0, sizeof b.scales);
  for (size_t g = 0; g < 16; ++g) {
    const unsigned scale = byte(s.scale[g] + 32);
    b.scales[g % 8] = static_cast<uint8_t>(b.scales[g % 8] | (scale & 15) << (4 * (g / 8)));
    b.scales[8 + g % 4] = static_cast<uint8_t>(b.scales[8 + g % 4] | (scale >> 4) << (2 * (g / 4)));
  }
  const auto codes = codes_of(s, 4);
  pack_two_bits(codes, b.qs);
  std::memset(b.hmask, 0, sizeof b.hmask);
  for (size_t i = 0; i < kElements; ++i)
    b.hmask[i % 32] = static_cast<uint8_t>(b.hmask[i % 32] | (codes[i] >> 2) << (i / 32));
}

void encode_block(const float* values, BlockQ4_K& b) {
  const auto s = fit<32>(values, {0, 15, 0, 63, 63});
  write_f16(s.d, b.d);
  write_f16(s.dmin, b.dmin);
  pack_six_bits(s, b.scales);
  pack_four_bits(codes_of(s, 0), b.qs);
}

void encode_block(const float* values, BlockQ5_K& b) {
  const auto s = fit<32>(values, {0, 31, 0, 63, 63});
  write_f16(s.d, b.d);
  write_f16(s.dmin, b.dmin);
  pack_six_bits(s, b.scales);
  const auto codes = codes_of(s, 0);
  pack_four_bits(codes, b.qs);
  std::memset(b.qh, 0, sizeof b.qh);
  for (size_t i = 0; i < kElements; ++i)
    b.qh[i % 32] = static_cast<uint8_t>(b.qh[i % 32] | (codes[i] >> 4) << (i / 32));
}

void encode_block(const float* values, BlockQ6_K& b) {
  const auto s = fit<16>(values, {-32, 31, -128, 127, 0});
  write_f16(s.d, b.d);
  for (size_t g = 0; g < 16; ++g) b.scales[g] = byte(s.scale[g]);
  const auto codes = codes_of(s, 32);
  for (size_t i = 0; i < 64; ++i) {
    const uint8_t* c = &codes[i / 32 * 128 + i % 32];
    uint8_t* low = &b.ql[i / 32 * 64 + i % 32];
    low[0] = static_cast<uint8_t>((c[0] & 15) | (c[64] & 15) << 4);
    low[32] = static_cast<uint8_t>((c[32] & 15) | (c[96] & 15) << 4);
    b.qh[i] = static_cast<uint8_t>(c[0] >> 4 | (c[32] >> 4) << 2 | (c[64] >> 4) << 4 | (c[96] >> 4) << 6);
  }
}

}  // namespace calotype::weights
