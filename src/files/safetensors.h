// Reads and writes the header of safetensors files (format: huggingface/safetensors README and tensor.rs).
//
//   TensorTable table = parse_safetensors(file->bytes(), "model.safetensors");
//
// The parser accepts what the reference accepts and nothing else: it is fed by strangers. Thread-safe.
#pragma once

#include <span>

#include "files/tensor_file.h"

namespace calotype::files {

/// Largest header accepted, as in the reference implementation.
inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

/// `source` names the file in messages. Errors: corrupt_file with what was expected and found; unsupported for a number
/// type that we do not know.
TensorTable parse_safetensors(std::span<const std::byte> bytes, std::string_view source);

/// Length field and header for tensors written one after another in this order; sets each entry's offset.
std::string make_safetensors_header(TensorTable& table);

}  // namespace calotype::files
