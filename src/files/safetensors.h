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

/// A length that a header can have and the brace after it: enough to tell safetensors, whole or cut short, from others.
bool looks_like_safetensors(std::span<const std::byte> bytes);

/// `source` names the file in messages. Errors: corrupt_file with what was expected and found; unsupported for a number
/// type that we do not know and for a header above the limit.
TensorTable parse_safetensors(std::span<const std::byte> bytes, std::string_view source);

/// Length field and header for tensors written one after another in this order; sets each entry's offset. Errors:
/// unsupported for a tensor that safetensors cannot hold.
std::string make_safetensors_header(TensorTable& table);

}  // namespace calotype::files
