#include "pipeline/convert_plan.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "flux/variant.h"
#include "pipeline/diffusers_config.h"

namespace calotype::pipeline {

using base::ErrorKind;
using files::Container;
using files::TensorType;
using weights::Component;
using weights::Source;
using weights::TensorIndex;

namespace {

constexpr int64_t kSmall = 1024;        // tensors up to this size are f32 in GGUF files
constexpr uint64_t kHeaderEntry = 128;  // about what a tensor takes beside its numbers and its name

bool is_fp8(TensorType type) { return type == TensorType::f8_e4m3 || type == TensorType::f8_e5m2; }
bool is_packed(TensorType type) { return is_fp8(type) || files::is_block(type); }

// ---- Stored numbers in the order of our tensors ---------------------------------------------------------------------

using Pieces = std::vector<Piece>;

/// Numbers begin … end − 1 of what the pieces are together. Blocks are never cut.
Pieces slice(const Pieces& pieces, int64_t begin, int64_t end) {
  Pieces out;
  int64_t first = 0;  // of the current piece within the whole
  for (const Piece& piece : pieces) {
    const int64_t size = piece.end - piece.begin;
    const int64_t from = std::max(begin, first), to = std::min(end, first + size);
    if (from < to) {
      const Piece cut{piece.part, piece.begin + from - first, piece.begin + to - first};
      const int64_t block = files::traits(piece.part->tensor.type).block;
      base::check(cut.begin % block == 0 && cut.end % block == 0, ErrorKind::unsupported,
                  "{}: would have to be cut within a block of {} numbers; convert it from a file that is not quantised",
                  piece.part->tensor.where(), block);
      out.push_back(cut);
    }
    first += size;
  }
  return out;
}

Pieces swap_halves(const Pieces& pieces, int64_t elements) {
  Pieces out = slice(pieces, elements / 2, elements);
  std::ranges::move(slice(pieces, 0, elements / 2), std::back_inserter(out));
  return out;
}

Pieces pieces_of(const Source& source, int64_t elements) {
  Pieces pieces;
  for (const Source::Part& part : source.parts) pieces.push_back({&part, 0, part.tensor.elements()});
  return source.swapped ? swap_halves(pieces, elements) : pieces;
}

// ---- Names ----------------------------------------------------------------------------------------------------------

/// Rows begin … end − 1 of one of our tensors under the name that they have in the file.
struct NamedRows {
  std::string name;
  int64_t begin = 0, end = 0;
  bool swapped = false;
};

class Names {
 public:
  Names(const TensorIndex& index, const Target& target) : index_(index), target_(target) {
    if (index.component == Component::t5 && target.container == Container::gguf) ask_llama_names();
    std::vector<std::string> ours;
    for (const auto& [name, source] : index.tensors) ours.push_back(name);
    context_ = weights::key_context(ours);
    if (index.component == Component::transformer && target.layout == Layout::diffusers)
      width_ = flux::transformer_config(index).width;
  }

  std::vector<NamedRows> of(const std::string& ours, int64_t rows) const {
    const auto llama = llama_names_.find(ours);
    if (llama != llama_names_.end()) return {{.name = llama->second, .begin = 0, .end = rows}};
    const bool split = index_.component == Component::transformer || index_.component == Component::vae;
    if (target_.layout == Layout::bfl || !split) return {{.name = ours, .begin = 0, .end = rows}};
    std::vector<NamedRows> out;
    for (const weights::DiffusersKey& key : weights::diffusers_keys(ours, context_)) {
      // q, k and v have the model's width each; the MLP of the single blocks, stacked below them, has the rest.
      const int64_t each = key.parts == 1 ? rows : width_;
      const int64_t begin = key.part * each;
      out.push_back({.name = key.name,
                     .begin = begin,
                     .end = key.part + 1 == key.parts ? rows : begin + each,
                     .swapped = key.swapped});
      base::check(out.back().begin < out.back().end, ErrorKind::corrupt_file,
                  "{}: tensor {} has {} rows, too few for {} pieces of {}", index_.where(), ours, rows, key.parts,
                  width_);
    }
    base::check(!out.empty(), ErrorKind::internal, "{} has no name in the diffusers layout", ours);
    return out;
  }

 private:
  /// The name table is read from their names to ours, so it is asked for each name that llama.cpp's T5 has.
  void ask_llama_names() {
    const auto ask = [this](const std::string& llama) {
      if (const auto key = weights::canonical_key(llama, context_)) llama_names_[key->name] = llama;
    };
    ask("token_embd.weight");
    ask("enc.output_norm.weight");
    for (int layer = 0; layer < index_.count("encoder.block."); ++layer)
      for (const char* leaf : {"attn_q", "attn_k", "attn_v", "attn_o", "attn_rel_b", "attn_norm", "ffn_gate", "ffn_up",
                               "ffn_down", "ffn_norm"})
        ask(fmt::format("enc.blk.{}.{}.weight", layer, leaf));
  }

  const TensorIndex& index_;
  const Target& target_;
  weights::KeyContext context_;
  std::map<std::string, std::string> llama_names_;
  int64_t width_ = 0;
};

/// The VAE's attention is made of 1×1 convolutions in one layout, of matrices in the other.
std::vector<int64_t> shape_in(Layout layout, std::string_view ours, std::vector<int64_t> shape) {
  const bool attention = ours.find(".mid.attn_1.") != std::string_view::npos && ours.ends_with(".weight");
  if (!attention) return shape;
  if (layout == Layout::bfl && shape.size() == 2) shape.insert(shape.end(), {1, 1});
  if (layout == Layout::diffusers && shape.size() == 4 && shape[2] == 1 && shape[3] == 1) shape.resize(2);
  return shape;
}

// ---- Types ----------------------------------------------------------------------------------------------------------

/// The type that pieces have, or one that holds all of theirs.
TensorType common_type(const Pieces& pieces) {
  const TensorType first = pieces.front().part->tensor.type;
  if (std::ranges::all_of(pieces, [&](const Piece& p) { return p.part->tensor.type == first; })) return first;
  const bool within_f16 = std::ranges::all_of(pieces, [](const Piece& p) {
    const TensorType type = p.part->tensor.type;
    return type == TensorType::f16 || is_packed(type);
  });
  return within_f16 ? TensorType::f16 : TensorType::f32;
}

TensorType plain(TensorType stored) { return stored == TensorType::bf16 ? TensorType::bf16 : TensorType::f16; }

/// Matrices that take nearly all the space and bear rounding; modulation belongs to them.
bool may_be_packed(Component component, std::string_view ours, size_t rank) {
  if (rank != 2 || !ours.ends_with(".weight")) return false;
  if (component == Component::transformer)
    return ours.starts_with("double_blocks.") || ours.starts_with("single_blocks.");
  return component == Component::t5 && ours.starts_with("encoder.block.") &&
         !ours.ends_with("relative_attention_bias.weight");
}

struct Candidate {
  Component component;
  std::string_view ours;
  std::vector<int64_t> shape;
  TensorType stored;
};

TensorType choose_type(const Candidate& tensor, const Target& target) {
  const bool gguf = target.container == Container::gguf;
  const bool small = tensor.shape.size() < 2 || *files::element_count(tensor.shape) <= kSmall;
  if (gguf && small && (target.type || !is_packed(tensor.stored))) return TensorType::f32;
  if (!target.type) return tensor.stored;
  const TensorType wanted = *target.type;
  if (!is_packed(wanted)) return wanted;
  if (tensor.component == Component::clip || tensor.component == Component::vae) return tensor.stored;
  // What is packed already stays so in GGUF: unpacking it would only cost space.
  const bool stays_packed = gguf && files::is_block(tensor.stored);
  if (!may_be_packed(tensor.component, tensor.ours, tensor.shape.size()))
    return stays_packed ? tensor.stored : plain(tensor.stored);
  const int64_t columns = tensor.shape.back();
  if (columns % files::traits(wanted).block == 0) return wanted;
  return columns % files::traits(TensorType::q8_0).block == 0 ? TensorType::q8_0 : plain(tensor.stored);
}

void check_container(const OutputTensor& tensor, Container container) {
  const files::TypeTraits& traits = files::traits(tensor.entry.type);
  const std::string where = tensor.pieces.front().part->tensor.where();
  base::check(container == Container::gguf || !traits.safetensors.empty(), ErrorKind::unsupported,
              "{}: is stored as {}, which safetensors cannot hold; write a .gguf file (--layout bfl for a folder) or "
              "add --type bf16",
              where, traits.name);
  base::check(container == Container::safetensors || traits.ggml >= 0, ErrorKind::unsupported,
              "{}: is stored as {}, which GGUF cannot hold; add --type f16 or --type q8_0", where, traits.name);
}

// ---- Scales of f8 ---------------------------------------------------------------------------------------------------

bool uniform(const Pieces& pieces, TensorType type) {
  return std::ranges::all_of(pieces, [&](const Piece& p) {
    return p.part->tensor.type == type && p.part->scale == pieces.front().part->scale;
  });
}

void choose_scale(OutputTensor& tensor, const Target& target) {
  if (!is_fp8(tensor.entry.type)) return;
  const float stored = tensor.pieces.front().part->scale;
  if (uniform(tensor.pieces, tensor.entry.type) && (target.layout == Layout::bfl || stored == 1.0f)) {
    tensor.scale = stored;
  } else if (target.layout == Layout::bfl) {
    // f8_e5m2 has the range of f16 and is published without scales.
    tensor.measured = tensor.entry.type == TensorType::f8_e4m3;
  } else {
    base::check(target.type.has_value(), ErrorKind::unsupported,
                "{}: is {} with a scale of its own, which the diffusers layout has no place for; add --type bf16",
                tensor.pieces.front().part->tensor.where(), files::name(tensor.entry.type));
  }
}

/// ComfyUI's form: a scalar beside each weight, and an empty tensor whose type says how the weights are stored. One
/// scaled weight makes it expect a scale for all.
void add_scales(FilePlan& plan) {
  if (std::ranges::none_of(plan.tensors, [](const OutputTensor& t) { return t.measured || t.scale != 1.0f; })) return;
  std::vector<OutputTensor> scales;
  TensorType type = TensorType::f8_e4m3;
  for (const OutputTensor& tensor : plan.tensors) {
    const std::string& name = tensor.entry.name;
    if (!is_fp8(tensor.entry.type) || !name.ends_with(".weight")) continue;
    type = tensor.entry.type;
    const std::string layer = name.substr(0, name.size() - std::string_view(".weight").size());
    scales.push_back(
        {.entry = {.name = layer + ".scale_weight", .type = TensorType::f32, .size = sizeof(float)}, .scale_of = name});
  }
  std::ranges::move(scales, std::back_inserter(plan.tensors));
  plan.tensors.push_back({.entry = {.name = "scaled_fp8", .type = type, .shape = {0}}});
}

std::map<std::string, std::string> make_metadata(const TensorIndex& index, Container container) {
  const std::string config = nlohmann::json{{weights::name(index.component), part_config(index)}}.dump();
  if (container == Container::safetensors)
    return {{"calotype.config", config}, {"format", "pt"}};  // transformers asks for it
  return {{"calotype.config", config},
          {"general.architecture", index.component == Component::t5 ? "t5encoder" : "flux"}};
}

}  // namespace

uint64_t FilePlan::bytes() const {
  uint64_t total = 0;
  for (const OutputTensor& tensor : tensors) total += tensor.entry.size + tensor.entry.name.size() + kHeaderEntry;
  return total;
}

float largest_number(TensorType type) {
  switch (type) {
    case TensorType::f8_e4m3: return 448.0f;
    case TensorType::f8_e5m2: return 57344.0f;
    case TensorType::f32:
    case TensorType::f64: return std::numeric_limits<float>::max();
    case TensorType::bf16: return 0x1.FEp127f;
    default: return 65504.0f;  // f16, also as the scale of a block
  }
}

FilePlan plan_file(const TensorIndex& index, const Target& target) {
  const bool in_gguf = index.component == Component::transformer || index.component == Component::t5;
  base::check(target.container == Container::safetensors || in_gguf, ErrorKind::unsupported,
              "{}: only the transformer and T5 are written as GGUF; name a .safetensors file for the {}", index.where(),
              weights::name(index.component));
  FilePlan plan{
      .component = index.component, .container = target.container, .metadata = make_metadata(index, target.container)};
  const Names names(index, target);
  for (const auto& [ours, source] : index.tensors) {
    const std::vector<int64_t> shape = shape_in(target.layout, ours, source.shape());
    const auto elements = static_cast<int64_t>(files::element_count(shape).value_or(0));
    const std::vector<NamedRows> names_of_rows = elements > 0 ? names.of(ours, shape[0]) : std::vector<NamedRows>();
    const bool halved = source.swapped || std::ranges::any_of(names_of_rows, &NamedRows::swapped);
    base::check(elements > 0 && !(halved && shape[0] % 2), ErrorKind::corrupt_file,
                "{}: tensor {} has shape {}, which cannot be right", index.where(), ours, files::shape_text(shape));
    const Pieces pieces = pieces_of(source, elements);
    const int64_t columns = elements / shape[0];
    for (const NamedRows& rows : names_of_rows) {
      const int64_t begin = rows.begin * columns, end = rows.end * columns;
      OutputTensor tensor{.entry = {.name = rows.name, .shape = shape}, .pieces = slice(pieces, begin, end)};
      if (rows.swapped) tensor.pieces = swap_halves(tensor.pieces, end - begin);
      tensor.entry.shape[0] = rows.end - rows.begin;
      tensor.entry.type = choose_type({index.component, ours, tensor.entry.shape, common_type(tensor.pieces)}, target);
      tensor.entry.size = files::bytes_of(tensor.entry.type, static_cast<uint64_t>(end - begin)).value();
      check_container(tensor, target.container);
      choose_scale(tensor, target);
      plan.tensors.push_back(std::move(tensor));
    }
  }
  if (target.layout == Layout::bfl) add_scales(plan);
  // Readers that hand out views of the file expect each number at a multiple of its size.
  const auto number_size = [](const OutputTensor& t) { return files::traits(t.entry.type).block_bytes; };
  if (target.container == Container::safetensors) std::ranges::stable_sort(plan.tensors, std::greater<>(), number_size);
  return plan;
}

}  // namespace calotype::pipeline
