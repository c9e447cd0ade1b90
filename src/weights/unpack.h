// Stored numbers → tensors: without a copy where the file already holds what is asked for, decoded row by row
// otherwise.
//
//   at::Tensor weight = unpack(*index.find("img_in.weight"), at::kBFloat16);      // [out, in]
//
// Thread-safe; decoding runs on all of ATen's threads.
#pragma once

#include <ATen/core/Tensor.h>

#include "weights/tensor_index.h"

namespace calotype::weights {

/// The source in `dtype` (f32, bf16 or f16), shape as stored, on the CPU. A single plain part of that very type is
/// returned as a view of the file's pages (read-only: writing to it ends the process); it keeps the file mapped.
at::Tensor unpack(const Source& source, at::ScalarType dtype);

/// Decodes into `out`: contiguous, on the CPU, shape as stored.
void unpack_into(const Source& source, const at::Tensor& out);

/// True when unpack() needs no memory of its own.
bool unpacks_in_place(const Source& source, at::ScalarType dtype);

/// True for fp8 and ggml blocks, which stay packed in memory; f32, bf16, f16 and f64 are plain.
bool is_packed(const Source& source);

}  // namespace calotype::weights
