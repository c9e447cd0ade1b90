// Reads and writes the header of GGUF files, version 3 (format: ggml-org/ggml docs/gguf.md).
//
//   TensorTable table = parse_gguf(file->bytes(), "flux1-dev-Q8_0.gguf");
//
// Every number in the file is checked before it is used: strangers wrote it. Thread-safe.
#pragma once

#include <span>

#include "files/tensor_file.h"

namespace calotype::files {

/// `source` names the file in messages. Errors: corrupt_file, or unsupported (other version, big-endian, unknown type).
/// Scalars and strings (of long ones the first 64 kB) go to `metadata` as text; arrays are skipped.
TensorTable parse_gguf(std::span<const std::byte> bytes, std::string_view source);

/// Everything before the data, padded to the alignment of 32; sets each entry's offset. Each tensor's data must be
/// padded to `kGgufAlignment` when it is written. `metadata` becomes string pairs, less keys that GGUF cannot hold.
/// Errors: unsupported for a tensor that it cannot hold.
std::string make_gguf_header(TensorTable& table);

inline constexpr uint64_t kGgufAlignment = 32;

}  // namespace calotype::files
