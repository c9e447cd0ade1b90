// Tensors of any names, types and shapes sorted into the parts of a model. The input is a safetensors file.
#include "weights/tensor_index.h"

#include "files/safetensors.h"
#include "fuzz.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  // Stored tensors name their file in messages; any will do.
  static const auto mapped = files::MappedFile::open("/proc/self/exe");
  files::TensorFile file{.path = mapped->path()};
  const auto read = [&] {
    files::TensorTable table = files::parse_safetensors(bytes_of(input), kSource);
    file.metadata = table.metadata;
    for (const files::TensorEntry& entry : table.entries)
      file.tensors.push_back({.name = entry.name,
                              .type = entry.type,
                              .shape = entry.shape,
                              .bytes = bytes_of(input).subspan(entry.offset, entry.size),
                              .file = mapped});
  };
  if (!accepted(read)) return;

  weights::Checkpoint checkpoint;
  if (!accepted([&] { checkpoint = weights::index_tensors({file}); }, mapped->path().string())) return;
  for (const auto& [component, index] : checkpoint.parts) {
    require(index.config.is_null() || index.config.is_object(), "the configuration is an object");
    for (const auto& [name, source] : index.tensors) {
      require(!source.parts.empty(), "a tensor consists of something");
      uint64_t elements = 0, bytes = 0;
      for (const weights::Source::Part& part : source.parts) {
        elements += static_cast<uint64_t>(part.tensor.elements());
        bytes += part.tensor.bytes.size();
      }
      require(files::element_count(source.shape()) == elements && elements > 0, "pieces stack to the whole shape");
      require(source.bytes() == bytes, "bytes are those of the pieces");
    }
    for (const char* prefix : {"double_blocks.", "decoder.up.", "encoder.block."})
      require(index.count(prefix) >= 0 && index.count(prefix) <= 1000, "layers are counted");
  }
}

}  // namespace calotype::fuzz
