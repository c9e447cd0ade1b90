#include "weights/tensor_writer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/safetensors.h"

namespace calotype::weights {
namespace {

using base::ErrorKind;
using files::TensorType;

struct NumberType {
  at::ScalarType scalar;
  TensorType stored;
};

constexpr std::array<NumberType, 7> kTypes = {{{at::kFloat, TensorType::f32},
                                               {at::kBFloat16, TensorType::bf16},
                                               {at::kHalf, TensorType::f16},
                                               {at::kDouble, TensorType::f64},
                                               {at::kLong, TensorType::i64},
                                               {at::kInt, TensorType::i32},
                                               {at::kByte, TensorType::u8}}};

TensorType stored_type(const std::string& name, const at::Tensor& tensor) {
  base::check(tensor.defined(), ErrorKind::internal, "tensor {} is to be written but undefined", name);
  const auto found = std::ranges::find(kTypes, tensor.scalar_type(), &NumberType::scalar);
  base::check(found != kTypes.end(), ErrorKind::unsupported,
              "tensor {} has number type {}, which is not written; convert it to f32", name,
              c10::toString(tensor.scalar_type()));
  return found->stored;
}

at::ScalarType scalar_type(const files::StoredTensor& stored) {
  const auto found = std::ranges::find(kTypes, stored.type, &NumberType::stored);
  base::check(found != kTypes.end(), ErrorKind::unsupported,
              "{} has number type {}; expected f32, bf16, f16, f64, i64, i32 or u8", stored.where(),
              files::name(stored.type));
  return found->scalar;
}

}  // namespace

void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  files::TensorTable table{.metadata = metadata};
  for (const auto& [name, tensor] : tensors)
    table.entries.push_back({.name = name,
                             .type = stored_type(name, tensor),
                             .shape = tensor.sizes().vec(),
                             .size = static_cast<uint64_t>(tensor.nbytes())});
  // Wide numbers first, as the reference writes them: every tensor is then aligned to its numbers' size in the file.
  std::ranges::stable_sort(table.entries, std::ranges::greater{},
                           [](const files::TensorEntry& entry) { return files::traits(entry.type).block_bytes; });
  base::AtomicFile file(path);
  file.write(files::make_safetensors_header(table));
  for (const files::TensorEntry& entry : table.entries) {
    const at::Tensor values = tensors.at(entry.name).detach().cpu().contiguous();
    file.write(std::span(static_cast<const std::byte*>(values.const_data_ptr()), entry.size));
  }
  file.commit();
}

std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path,
                                               std::map<std::string, std::string>* metadata) {
  files::TensorFile file = files::open_tensor_file(path);
  std::map<std::string, at::Tensor> out;
  for (const files::StoredTensor& stored : file.tensors) {
    const at::Tensor values = at::empty(stored.shape, at::TensorOptions().dtype(scalar_type(stored)));
    if (!stored.bytes.empty()) std::memcpy(values.data_ptr(), stored.bytes.data(), stored.bytes.size());
    out[stored.name] = values;
  }
  if (metadata) *metadata = std::move(file.metadata);
  return out;
}

}  // namespace calotype::weights
