#include "weights/fingerprint.h"

#include "base/sha256.h"

namespace calotype::weights {
namespace {

constexpr size_t kSample = 1024;  // bytes, from the beginning, the middle and the end of each stored tensor

}  // namespace

std::string fingerprint(const TensorIndex& index) {
  base::Sha256 hash;
  for (const auto& [name, source] : index.tensors) {
    hash.update(name);
    hash.update(files::shape_text(source.shape()));
    for (const Source::Part& part : source.parts) {
      const auto bytes = part.tensor.bytes;
      hash.update(fmt::format(" {} {} ", static_cast<int>(part.tensor.type), part.scale));
      const size_t sample = std::min(kSample, bytes.size());
      hash.update(bytes.first(sample));
      hash.update(bytes.subspan((bytes.size() - sample) / 2, sample));
      hash.update(bytes.last(sample));
    }
  }
  return hash.hex();
}

}  // namespace calotype::weights
