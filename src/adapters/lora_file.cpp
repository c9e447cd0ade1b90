#include "adapters/lora_file.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <cmath>
#include <cstring>

#include "adapters/lora_apply.h"
#include "adapters/lora_metadata.h"
#include "adapters/lora_names.h"
#include "base/error.h"
#include "files/tensor_file.h"
#include "weights/tensor_writer.h"
#include "weights/unpack.h"

namespace calotype::adapters {

using at::Tensor;
using base::check;
using base::ErrorKind;
using base::printable;
using files::StoredTensor;
using files::TensorFile;
using files::TensorType;

namespace {

// The matrices of FLUX.1 have at most rank 3072; kohya's split training multiplies the rank of one layer by four.
constexpr int64_t kMaxRank = 4 * 3072;

/// The tensors of one layer in the file.
struct StoredLayer {
  AdapterKey key;
  const StoredTensor *down = nullptr, *up = nullptr, *alpha = nullptr;
};
using StoredLayers = std::map<std::string, StoredLayer>;  // by stem

const StoredTensor*& place_for(StoredLayer& layer, Role role) {
  return role == Role::down ? layer.down : role == Role::up ? layer.up : layer.alpha;
}

/// The file's adapter layers. Tensors that are none are noted as a warning.
StoredLayers sort_tensors(const TensorFile& file, Adapter& out) {
  StoredLayers layers;
  std::vector<const StoredTensor*> others;
  for (const StoredTensor& tensor : file.tensors) {
    AdapterKey key = adapter_key(tensor.name);
    check(key.role != Role::foreign || key.place == Place::text_encoder, ErrorKind::unsupported,
          "{} is part of a {}, which is not supported; expected plain LoRA (pairs of down and up, or A and B)",
          tensor.where(), key.kind);
    if (key.role == Role::none || key.role == Role::foreign) {
      others.push_back(&tensor);
      continue;
    }
    const Role role = key.role;
    StoredLayer& layer = layers[key.stem];
    layer.key = std::move(key);
    const StoredTensor*& place = place_for(layer, role);
    check(place == nullptr, ErrorKind::corrupt_file, "{}: {} has the same meaning as {}; the file holds two adapters",
          tensor.where(), printable(tensor.name), place ? printable(place->name) : "");
    place = &tensor;
  }
  check(!layers.empty(), ErrorKind::bad_input,
        "{}: has {} tensors and none of a LoRA (first: {}); expected names with lora_A and lora_B, or lora_down and "
        "lora_up",
        out.where, file.tensors.size(), file.tensors.empty() ? "none" : printable(file.tensors.front().name));
  if (!others.empty())
    out.warnings.push_back(fmt::format("{}: {} tensors that are not part of a LoRA were ignored (first: {})", out.where,
                                       others.size(), printable(others.front()->name)));
  return layers;
}

/// Layers of other models are an error, of text encoders a warning.
void check_places(const StoredLayers& layers, Adapter& out) {
  size_t text = 0, unknown = 0;
  std::string first;
  for (const auto& [stem, layer] : layers) {
    if (layer.key.place == Place::text_encoder) ++text;
    if (layer.key.place != Place::unknown) continue;
    if (unknown++ == 0) first = printable(stem);
  }
  check(unknown == 0 || unknown + text < layers.size(), ErrorKind::bad_input,
        "{}: none of {} adapter layers belongs to a FLUX.1 transformer (first: {}); the adapter was made for another "
        "model family",
        out.where, layers.size(), first);
  check(unknown == 0, ErrorKind::unsupported,
        "{}: {} of {} adapter layers are not layers of a FLUX.1 transformer (first: {}), and an adapter is not applied "
        "in part",
        out.where, unknown, layers.size(), first);
  check(text < layers.size(), ErrorKind::unsupported,
        "{}: all {} adapter layers belong to text encoders, which are not adapted; expected layers of the transformer",
        out.where, layers.size());
  if (text > 0)
    out.warnings.push_back(
        fmt::format("{}: text encoder part ignored: {} of {} adapter layers", out.where, text, layers.size()));
}

/// at::isfinite makes five passes with temporaries of the same size, which took most of the time of reading an adapter.
bool all_finite(const Tensor& values_f32) {
  constexpr uint32_t kExponent = 0x7f800000;  // all ones in NaN and infinite numbers
  const auto* bits = reinterpret_cast<const uint32_t*>(values_f32.const_data_ptr<float>());
  std::atomic<bool> finite = true;
  at::parallel_for(0, values_f32.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    uint32_t found = 0;
    for (int64_t i = begin; i < end; ++i) found |= (bits[i] & kExponent) == kExponent;
    if (found) finite = false;
  });
  return finite;
}

Tensor matrix(const StoredTensor& stored) {
  check(stored.shape.size() == 2 && stored.elements() > 0 && files::is_real(stored.type), ErrorKind::corrupt_file,
        "{} is {} of shape {}, expected a matrix of real numbers", stored.where(), files::name(stored.type),
        files::shape_text(stored.shape));
  const weights::Source source{.parts = {{.tensor = stored}}};
  Tensor values = weights::unpack(source, at::kFloat);
  if (weights::unpacks_in_place(source, at::kFloat)) values = values.clone();  // the file's own pages
  check(all_finite(values), ErrorKind::corrupt_file,
        "{} holds numbers that are NaN or infinite; the training of this adapter failed, use an earlier checkpoint",
        stored.where());
  return values;
}

double number(const StoredTensor& stored) {
  const bool whole = stored.type == TensorType::i64 || stored.type == TensorType::i32;
  check(stored.elements() == 1 && (whole || files::is_real(stored.type)) && !files::is_block(stored.type),
        ErrorKind::corrupt_file, "{} is {} of shape {}, expected one number", stored.where(), files::name(stored.type),
        files::shape_text(stored.shape));
  if (stored.type == TensorType::i64 || stored.type == TensorType::i32) {
    int64_t value = 0;  // little-endian: the first bytes of a narrower number are its low ones
    std::memcpy(&value, stored.bytes.data(), stored.bytes.size());
    return static_cast<double>(stored.type == TensorType::i32 ? static_cast<int32_t>(value) : value);
  }
  const double value = weights::unpack({.parts = {{.tensor = stored}}}, at::kFloat).reshape({1})[0].item<double>();
  check(std::isfinite(value), ErrorKind::corrupt_file, "{} is {}, expected a finite number", stored.where(), value);
  return value;
}

void check_pair(const StoredLayer& layer, const std::string& where) {
  const std::string stem = printable(layer.key.stem);
  check(layer.down && layer.up, ErrorKind::corrupt_file, "{}: {} has {} and no {}; the file is incomplete", where, stem,
        layer.down ? "a down matrix"
        : layer.up ? "an up matrix"
                   : "an alpha",
        layer.down ? "up matrix"
        : layer.up ? "down matrix"
                   : "matrices");
  const auto& a = layer.down->shape;
  const auto& b = layer.up->shape;
  check(a.size() == 2 && b.size() == 2, ErrorKind::corrupt_file,
        "{} and its up matrix have shapes {} and {}, expected [rank, in] and [out, rank]", layer.down->where(),
        files::shape_text(a), files::shape_text(b));
  check(a[0] == b[1], ErrorKind::corrupt_file,
        "{} has shape {} and rank {}, its up matrix shape {} and rank {}; they "
        "do not belong together",
        layer.down->where(), files::shape_text(a), a[0], files::shape_text(b), b[1]);
  check(a[0] >= 1 && a[0] <= kMaxRank, ErrorKind::corrupt_file, "{} has rank {}, expected 1 to {}", layer.down->where(),
        a[0], kMaxRank);
  const int64_t pieces = layer.key.swapped ? 2 : layer.key.span;
  check(b[0] % pieces == 0, ErrorKind::corrupt_file, "{} has {} rows, expected a multiple of {}", layer.up->where(),
        b[0], pieces);
}

/// The pairs of one stored layer: one, or one for each part where a matrix covers some of a layer's parts.
std::vector<AdapterPair> pairs_of(const StoredLayer& layer, const std::optional<PeftScales>& peft) {
  const AdapterKey& key = layer.key;
  AdapterPair pair{.layer = key.layer,
                   .part = key.part,
                   .parts = key.parts,
                   .down_RI = matrix(*layer.down),
                   .up_OR = matrix(*layer.up),
                   .stored_name = key.stem};
  const int64_t rank = pair.down_RI.size(0);
  if (layer.alpha)
    pair.scale = number(*layer.alpha) / static_cast<double>(rank);
  else if (peft)
    pair.scale = peft->scale(key.module, rank);
  if (key.swapped) pair.up_OR = at::roll(pair.up_OR, pair.up_OR.size(0) / 2, 0);
  if (key.span == 1) return {pair};
  std::vector<AdapterPair> pairs;
  for (const Tensor& rows : pair.up_OR.chunk(key.span, 0)) {
    pairs.push_back(pair);
    pairs.back().part = key.part + static_cast<int>(pairs.size()) - 1;
    pairs.back().up_OR = rows;
  }
  return pairs;
}

// ------------------------------------------------------------------------------------------------------------ writing

Tensor rounded(const Tensor& values, at::ScalarType dtype, const std::string& name) {
  const Tensor out = values.detach().to(at::kCPU, dtype).contiguous();
  check(all_finite(out.to(at::kFloat)), ErrorKind::internal,
        "adapter tensor {} holds numbers that are NaN or infinite as {}; it was not saved", name, c10::toString(dtype));
  return out;
}

struct Output {
  std::map<std::string, Tensor> tensors;
  std::vector<ModuleRank> modules;
};

void add_module(Output& out, const AdapterPair& pair, const ModuleName& module, at::ScalarType dtype) {
  Tensor up = pair.up_OR;
  if (pair.parts == 1) {
    const Rows rows = rows_of(module.part, module.parts, {.in = pair.down_RI.size(1), .out = up.size(0)});
    up = up.narrow(0, rows.first, rows.count);
  }
  if (module.swapped) up = at::roll(up, up.size(0) / 2, 0);
  const std::string name = "transformer." + module.name;
  const bool is_new = out.tensors.emplace(name + ".lora_A.weight", rounded(pair.down_RI, dtype, name)).second;
  check(is_new, ErrorKind::internal, "adapter layer {} is there twice and was not saved", name);
  out.tensors.emplace(name + ".lora_B.weight", rounded(up, dtype, name));
  const int64_t rank = pair.down_RI.size(0);
  // Rounded to what f32 holds, so that 1.5 · 4 is 6 in the file and not 6.000000000000001.
  const auto alpha = static_cast<double>(static_cast<float>(pair.scale * static_cast<double>(rank)));
  out.modules.push_back({module.name, rank, alpha});
}

}  // namespace

Adapter read_adapter(const std::filesystem::path& path) {
  const TensorFile file = files::open_tensor_file(path);
  Adapter out{.metadata = file.metadata, .where = path.string()};
  const StoredLayers layers = sort_tensors(file, out);
  check_places(layers, out);
  const std::optional<PeftScales> peft = peft_scales(file.metadata, out.where);
  std::map<std::tuple<std::string, int, int>, std::string> seen;
  for (const auto& [stem, layer] : layers) {
    ++out.stored;
    if (layer.key.place != Place::transformer) continue;
    check_pair(layer, out.where);
    for (AdapterPair& pair : pairs_of(layer, peft)) {
      const auto [other, is_new] = seen.try_emplace({pair.layer, pair.part, pair.parts}, stem);
      check(is_new, ErrorKind::corrupt_file, "{}: {} and {} are the same layer; the file holds two adapters", out.where,
            printable(other->second), printable(stem));
      out.pairs.push_back(std::move(pair));
    }
  }
  return out;
}

void write_adapter(const std::filesystem::path& path, const std::vector<AdapterPair>& pairs,
                   const std::map<std::string, std::string>& metadata, at::ScalarType dtype) {
  Output out;
  for (const AdapterPair& pair : pairs) {
    const size_t before = out.modules.size();
    for (const ModuleName& module : diffusers_modules(pair.layer))
      if (pair.parts == 1 || (module.part == pair.part && module.parts == pair.parts))
        add_module(out, pair, module, dtype);
    check(out.modules.size() > before, ErrorKind::internal,
          "adapter layer {} has no name in diffusers and was not saved", pair.layer);
  }
  std::map<std::string, std::string> all = metadata;
  all["format"] = "pt";
  all[kPeftMetadata] = peft_metadata(out.modules);
  weights::write_tensors(path, out.tensors, all);
}

}  // namespace calotype::adapters
