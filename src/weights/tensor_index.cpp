#include "weights/tensor_index.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>

#include "base/error.h"
#include "files/shard_index.h"

namespace calotype::weights {
namespace fs = std::filesystem;
using base::ErrorKind;
using base::printable;
using files::StoredTensor;
using files::TensorFile;

namespace {

// Companions of a layer's weight in 8-bit files. Activation scales are not needed: activations stay in 16 or 32 bits.
constexpr std::string_view kScales[] = {".scale_weight", ".weight_scale"};
constexpr std::string_view kIgnored[] = {".scale_input",          ".input_scale", "scaled_fp8",
                                         ".comfy_quant",          "position_ids", "logit_scale",
                                         "text_projection.weight"};
constexpr std::string_view kForeignPackings[] = {
    ".absmax",  ".quant_map", ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4",
    ".qweight", ".wscales"};

template <typename List>
bool ends_with_any(std::string_view text, const List& ends) {
  return std::ranges::any_of(ends, [&](std::string_view end) { return text.ends_with(end); });
}

float read_scale(const StoredTensor& tensor) {
  base::check(tensor.type == files::TensorType::f32 && tensor.elements() == 1, ErrorKind::unsupported,
              "{} is {} of shape {}, expected one f32 number (only per-tensor scales are supported)", tensor.where(),
              files::name(tensor.type), files::shape_text(tensor.shape));
  float scale = 1;
  std::memcpy(&scale, tensor.bytes.data(), sizeof scale);
  return scale;
}

class Builder {
 public:
  explicit Builder(const std::vector<TensorFile>& files) : files_(files) {
    std::vector<std::string> names;
    for (const TensorFile& file : files)
      for (const StoredTensor& tensor : file.tensors) names.push_back(tensor.name);
    context_ = key_context(names);
  }

  Checkpoint build() {
    for (const TensorFile& file : files_) {
      for (const StoredTensor& tensor : file.tensors) add(tensor, file);
      take_config(file);
    }
    for (auto& [component, index] : out_.parts)
      for (auto& [name, source] : index.tensors) finish(name, source);
    return std::move(out_);
  }

 private:
  void add(const StoredTensor& tensor, const TensorFile& file) {
    base::check(
        !ends_with_any(tensor.name, kForeignPackings), ErrorKind::unsupported,
        "{}: weights packed by bitsandbytes or nunchaku are not supported; use the bf16, fp8 or GGUF file of the "
        "same model",
        tensor.where());
    if (ends_with_any(tensor.name, kScales)) return remember_scale(tensor);
    if (ends_with_any(tensor.name, kIgnored)) return;
    const auto key = canonical_key(tensor.name, context_);
    if (!key || !files::is_real(tensor.type)) {
      out_.unknown.push_back(tensor);
      return;
    }
    // T5 files may carry the shared embedding twice under two names; the first one serves.
    TensorIndex& index = part(key->component, file);
    Source& source = index.tensors[key->name];
    if (key->name == "shared.weight" && !source.parts.empty()) return;
    const auto pieces = static_cast<size_t>(key->parts);
    base::check(source.parts.empty() || source.parts.size() == pieces, ErrorKind::conflict,
                "{}: {} is there both whole and in pieces; name one file of the two for the {}", tensor.where(),
                key->name, name(key->component));
    source.swapped = key->swapped;
    source.parts.resize(pieces);
    StoredTensor& place = source.parts[static_cast<size_t>(key->part)].tensor;
    base::check(place.file == nullptr, ErrorKind::conflict, "{} is also in {}; name one file of the two for the {}",
                tensor.where(), place.file ? place.file->path().string() : "", name(key->component));
    place = tensor;
  }

  void remember_scale(const StoredTensor& tensor) {
    for (const std::string_view end : kScales)
      if (tensor.name.ends_with(end))
        scales_[tensor.name.substr(0, tensor.name.size() - end.size())] = read_scale(tensor);
  }

  TensorIndex& part(Component component, const TensorFile& file) {
    TensorIndex& index = out_.parts[component];
    index.component = component;
    if (std::ranges::find(index.files, file.path) == index.files.end()) index.files.push_back(file.path);
    return index;
  }

  void take_config(const TensorFile& file) {
    const auto text = file.metadata.find("calotype.config");
    if (text == file.metadata.end()) return;
    const auto all = files::parse_json_object(text->second, file.path.string() + ": metadata calotype.config");
    for (auto& [component, index] : out_.parts) {
      const auto config = all.find(name(component));
      const bool from_here = std::ranges::find(index.files, file.path) != index.files.end();
      if (from_here && index.config.is_null() && config != all.end() && config->is_object()) index.config = *config;
    }
  }

  void finish(const std::string& name, Source& source) {
    for (Source::Part& part : source.parts) {
      base::check(part.tensor.file != nullptr, ErrorKind::corrupt_file,
                  "{}: only some of the {} pieces of {} are there (q, k and v belong together)", where_of(source),
                  source.parts.size(), name);
      const auto& first = source.parts.front().tensor.shape;
      const auto& shape = part.tensor.shape;
      base::check(part.tensor.elements() > 0, ErrorKind::corrupt_file, "{} has shape {}, which holds no numbers",
                  part.tensor.where(), files::shape_text(shape));
      base::check(shape.size() == first.size() && !shape.empty() &&
                      std::equal(shape.begin() + 1, shape.end(), first.begin() + 1),
                  ErrorKind::corrupt_file, "{} has shape {}, which does not stack with {} into {}", part.tensor.where(),
                  files::shape_text(shape), files::shape_text(first), name);
      base::check(shape.size() > 1 || !files::is_block(part.tensor.type), ErrorKind::unsupported,
                  "{} is a vector of type {}, expected plain numbers (only matrices are quantised)",
                  part.tensor.where(), files::name(part.tensor.type));
      const std::string layer = part.tensor.name.substr(0, part.tensor.name.rfind('.'));
      const auto scale = scales_.find(layer);
      if (scale != scales_.end() && part.tensor.name.ends_with(".weight")) part.scale = scale->second;
    }
  }

  static std::string where_of(const Source& source) {
    for (const Source::Part& part : source.parts)
      if (part.tensor.file) return part.tensor.file->path().string();
    return "checkpoint";
  }

  const std::vector<TensorFile>& files_;
  KeyContext context_;
  Checkpoint out_;
  std::map<std::string, float> scales_;
};

}  // namespace

std::vector<int64_t> Source::shape() const {
  std::vector<int64_t> shape = parts.front().tensor.shape;
  for (size_t i = 1; i < parts.size(); ++i) shape[0] += parts[i].tensor.shape[0];
  return shape;
}

uint64_t Source::bytes() const {
  uint64_t total = 0;
  for (const Part& part : parts) total += part.tensor.bytes.size();
  return total;
}

const Source* TensorIndex::find(std::string_view name) const {
  const auto found = tensors.find(std::string(name));
  return found == tensors.end() ? nullptr : &found->second;
}

std::vector<int64_t> TensorIndex::shape(std::string_view tensor) const {
  const Source* source = find(tensor);
  base::check(source != nullptr, ErrorKind::corrupt_file, "{}: lacks tensor {} of the {}; the file is incomplete",
              where(), tensor, name(component));
  return source->shape();
}

int TensorIndex::count(std::string_view prefix) const {
  int count = 0;
  for (auto it = tensors.lower_bound(std::string(prefix)); it != tensors.end() && it->first.starts_with(prefix); ++it) {
    int number = -1;
    const char* digits = it->first.data() + prefix.size();
    std::from_chars(digits, it->first.data() + it->first.size(), number);
    count = std::max(count, number + 1);
  }
  return count;
}

int64_t TensorIndex::parameters() const {
  int64_t total = 0;
  for (const auto& [key, source] : tensors)
    for (const Source::Part& part : source.parts) total += part.tensor.elements();
  return total;
}

uint64_t TensorIndex::bytes() const {
  uint64_t total = 0;
  for (const auto& [key, source] : tensors) total += source.bytes();
  return total;
}

void TensorIndex::release_pages() const {
  for (const auto& [key, source] : tensors)
    for (const Source::Part& part : source.parts) part.tensor.file->release(part.tensor.bytes);
}

std::string TensorIndex::where() const {
  if (files.empty()) return std::string(name(component));
  return files.size() == 1 ? files.front().string()
                           : fmt::format("{} and {} more", files.front().string(), files.size() - 1);
}

Checkpoint index_tensors(const std::vector<TensorFile>& files) { return Builder(files).build(); }

}  // namespace calotype::weights
