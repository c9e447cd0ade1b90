#include "weights/unpack.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "base/error.h"
#include "weights/quant.h"

namespace calotype::weights {
namespace {

using files::StoredTensor;
using files::TensorType;

std::optional<at::ScalarType> plain_type(TensorType type) {
  switch (type) {
    case TensorType::f32: return at::kFloat;
    case TensorType::f16: return at::kHalf;
    case TensorType::bf16: return at::kBFloat16;
    default: return std::nullopt;
  }
}

void decode(TensorType type, std::span<const std::byte> bytes, void* out, at::ScalarType dtype, int64_t n,
            float scale) {
  const auto count = static_cast<size_t>(n);
  switch (dtype) {
    case at::kFloat: return decode_f32(type, bytes, {static_cast<float*>(out), count}, scale);
    case at::kBFloat16: return decode_bf16(type, bytes, {static_cast<uint16_t*>(out), count}, scale);
    case at::kHalf: return decode_f16(type, bytes, {static_cast<uint16_t*>(out), count}, scale);
    default: base::fail(base::ErrorKind::internal, "weights cannot be unpacked to this number type");
  }
}

/// Decodes one part into rows starting at `first_row` of `out`; row r lands at (r + shift) mod rows.
void decode_part(const Source::Part& part, const at::Tensor& out, int64_t first_row, int64_t shift) {
  const StoredTensor& stored = part.tensor;
  // A vector of block numbers is one row: its blocks cross every other border.
  const bool one_row = stored.shape.empty() || (stored.shape.size() == 1 && files::is_block(stored.type));
  const int64_t rows = one_row ? 1 : stored.shape[0];
  if (rows == 0) return;
  const int64_t columns = stored.elements() / rows;
  const int64_t all_rows = shift ? out.size(0) : rows;
  const auto row_bytes = static_cast<int64_t>(stored.bytes.size()) / rows;
  auto* base_address = static_cast<std::byte*>(out.data_ptr());
  const int64_t item = static_cast<int64_t>(out.element_size());
  const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, columns));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end;) {
      const int64_t target = shift ? (row + shift) % all_rows : row;
      const int64_t run = std::min(end - row, shift ? all_rows - target : end - row);
      const auto bytes =
          stored.bytes.subspan(static_cast<size_t>(row * row_bytes), static_cast<size_t>(run * row_bytes));
      decode(stored.type, bytes, base_address + (first_row + target) * columns * item, out.scalar_type(), run * columns,
             part.scale);
      row += run;
    }
  });
}

}  // namespace

bool is_packed(const Source& source) {
  for (const Source::Part& part : source.parts)
    if (!plain_type(part.tensor.type) && part.tensor.type != TensorType::f64) return true;
  return false;
}

bool unpacks_in_place(const Source& source, at::ScalarType dtype) {
  const Source::Part& part = source.parts.front();
  // Files promise no alignment beyond 8 bytes, and old ones not even that.
  const auto address = reinterpret_cast<uintptr_t>(part.tensor.bytes.data());
  return source.parts.size() == 1 && !source.swapped && part.scale == 1.0f && plain_type(part.tensor.type) == dtype &&
         address % c10::elementSize(dtype) == 0;
}

at::Tensor unpack(const Source& source, at::ScalarType dtype) {
  const std::vector<int64_t> shape = source.shape();
  if (unpacks_in_place(source, dtype)) {
    const StoredTensor& stored = source.parts.front().tensor;
    auto* address = const_cast<std::byte*>(stored.bytes.data());
    return at::from_blob(
        address, shape, [file = stored.file](void*) {}, at::TensorOptions().dtype(dtype));
  }
  const at::Tensor out = at::empty(shape, at::TensorOptions().dtype(dtype));
  unpack_into(source, out);
  return out;
}

void unpack_into(const Source& source, const at::Tensor& out) {
  int64_t row = 0;
  for (const Source::Part& part : source.parts) {
    decode_part(part, out, row, source.swapped ? out.size(0) / 2 : 0);
    row += part.tensor.shape.empty() ? 0 : part.tensor.shape[0];
  }
}

}  // namespace calotype::weights
