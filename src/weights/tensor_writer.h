// Tensors to a safetensors file and back, for files that we write ourselves: adapters, latents, checkpoints of a run.
//
//   write_tensors("adapter.safetensors", {{"lora_A.weight", a}, {"lora_B.weight", b}}, {{"format", "pt"}});
//   std::map<std::string, std::string> metadata;
//   std::map<std::string, at::Tensor> tensors = read_tensors("adapter.safetensors", &metadata);
//
// Thread-safe, as long as nobody changes the tensors meanwhile.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace calotype::weights {

/// Writes f32, bf16, f16, f64, i64, i32 or u8 tensors of any device and layout; the file appears whole or not at all.
/// Tensors are copied to contiguous memory one at a time. Errors: those of base::AtomicFile (disk_full, bad_input, …);
/// unsupported for another number type.
void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors,
                   const std::map<std::string, std::string>& metadata = {});

/// Copies of all tensors of a safetensors or GGUF file, on the CPU, in the types that write_tensors() takes. Errors:
/// those of files::open_tensor_file(); unsupported for another number type.
std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path,
                                               std::map<std::string, std::string>* metadata = nullptr);

}  // namespace calotype::weights
