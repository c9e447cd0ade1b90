// A checkpoint file of any supported container, recognised by its first bytes, never by its name.
//
//   TensorFile file = open_tensor_file("flux1-dev.safetensors");
//   for (const StoredTensor& t : file.tensors) use(t.name, t.type, t.shape, t.bytes);
//
// Nothing is read but the header; the tensors' bytes stay mapped while a StoredTensor (or a copy of it) lives.
// Values are immutable and may be used from any thread.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "files/mapped_file.h"
#include "files/tensor_type.h"

namespace calotype::files {

/// What a header says of one tensor: `offset` counts from the start of the file.
struct TensorEntry {
  std::string name;
  TensorType type = TensorType::f32;
  std::vector<int64_t> shape;  ///< row-major, slowest first (GGUF's order is turned round)
  uint64_t offset = 0;
  uint64_t size = 0;  ///< bytes
};

/// A parsed header; every entry lies inside the file, none overlaps another, names are unique.
struct TensorTable {
  std::vector<TensorEntry> entries;             ///< in file order
  std::map<std::string, std::string> metadata;  ///< safetensors __metadata__, GGUF's scalar and string pairs
};

struct StoredTensor {
  std::string name;
  TensorType type = TensorType::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  std::shared_ptr<const MappedFile> file;

  int64_t elements() const;
  /// "file.safetensors: tensor img_in.weight", the start of every message about it.
  std::string where() const;
};

enum class Container { safetensors, gguf };
std::string_view name(Container container);

struct TensorFile {
  std::filesystem::path path;
  Container container = Container::safetensors;
  std::vector<StoredTensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Errors: not_found; unsupported for what is certainly something else (pickle, zip, HTML, a Git LFS pointer, …),
/// saying so; corrupt_file for a damaged header, with the tensor and the numbers.
TensorFile open_tensor_file(const std::filesystem::path& path);

/// "[4, 16]" for messages.
std::string shape_text(const std::vector<int64_t>& shape);

/// Product of the extents, each ≥ 0; nothing on overflow.
std::optional<uint64_t> element_count(const std::vector<int64_t>& shape);

}  // namespace calotype::files
