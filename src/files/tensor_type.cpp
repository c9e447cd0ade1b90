#include "files/tensor_type.h"

#include <algorithm>
#include <array>

namespace calotype::files {
namespace {

using enum TensorType;

// Block sizes: ggml-common.h. Order is that of the enum.
constexpr std::array kTypes = {
    TypeTraits{f64, "f64", "F64", 28, 1, 8},
    TypeTraits{f32, "f32", "F32", 0, 1, 4},
    TypeTraits{f16, "f16", "F16", 1, 1, 2},
    TypeTraits{bf16, "bf16", "BF16", 30, 1, 2},
    TypeTraits{f8_e4m3, "f8_e4m3", "F8_E4M3", -1, 1, 1},
    TypeTraits{f8_e5m2, "f8_e5m2", "F8_E5M2", -1, 1, 1},
    TypeTraits{i64, "i64", "I64", 27, 1, 8},
    TypeTraits{i32, "i32", "I32", 26, 1, 4},
    TypeTraits{i16, "i16", "I16", 25, 1, 2},
    TypeTraits{i8, "i8", "I8", 24, 1, 1},
    TypeTraits{u64, "u64", "U64", -1, 1, 8},
    TypeTraits{u32, "u32", "U32", -1, 1, 4},
    TypeTraits{u16, "u16", "U16", -1, 1, 2},
    TypeTraits{u8, "u8", "U8", -1, 1, 1},
    TypeTraits{boolean, "bool", "BOOL", -1, 1, 1},
    TypeTraits{q4_0, "q4_0", "", 2, 32, 18},
    TypeTraits{q4_1, "q4_1", "", 3, 32, 20},
    TypeTraits{q5_0, "q5_0", "", 6, 32, 22},
    TypeTraits{q5_1, "q5_1", "", 7, 32, 24},
    TypeTraits{q8_0, "q8_0", "", 8, 32, 34},
    TypeTraits{q2_k, "q2_k", "", 10, 256, 84},
    TypeTraits{q3_k, "q3_k", "", 11, 256, 110},
    TypeTraits{q4_k, "q4_k", "", 12, 256, 144},
    TypeTraits{q5_k, "q5_k", "", 13, 256, 176},
    TypeTraits{q6_k, "q6_k", "", 14, 256, 210},
};

template <typename Match>
std::optional<TensorType> find(Match match) {
  const auto row = std::ranges::find_if(kTypes, match);
  if (row == kTypes.end()) return std::nullopt;
  return row->type;
}

}  // namespace

const TypeTraits& traits(TensorType type) { return kTypes[static_cast<size_t>(type)]; }

bool is_real(TensorType type) { return type <= f8_e5m2 || type >= q4_0; }

std::optional<TensorType> type_from_name(std::string_view name) {
  return find([&](const TypeTraits& row) { return row.name == name; });
}

std::optional<TensorType> type_from_safetensors(std::string_view name) {
  return find([&](const TypeTraits& row) { return !name.empty() && row.safetensors == name; });
}

std::optional<TensorType> type_from_ggml(uint32_t number) {
  return find([&](const TypeTraits& row) { return row.ggml >= 0 && static_cast<uint32_t>(row.ggml) == number; });
}

std::optional<uint64_t> bytes_of(TensorType type, uint64_t elements) {
  const TypeTraits& row = traits(type);
  if (elements % static_cast<uint64_t>(row.block) != 0) return std::nullopt;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / static_cast<uint64_t>(row.block), row.block_bytes, &bytes)) return std::nullopt;
  return bytes;
}

}  // namespace calotype::files
