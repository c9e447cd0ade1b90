#include "pipeline/convert.h"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/gguf.h"
#include "files/safetensors.h"
#include "pipeline/diffusers_config.h"
#include "pipeline/memory_plan.h"
#include "pipeline/model_bundle.h"
#include "text/clip_encoder.h"
#include "weights/quant.h"

namespace calotype::pipeline {
namespace fs = std::filesystem;

using base::ErrorKind;
using files::Container;
using files::TensorType;
using weights::Component;
using weights::Source;
using weights::TensorIndex;

namespace {

constexpr float kAnyFinite = std::numeric_limits<float>::max();

// ---- Numbers --------------------------------------------------------------------------------------------------------

// What one thread decodes at once, a multiple of every block that fits in its cache; and what is written at once.
constexpr int64_t kRun = 1 << 16;
constexpr int64_t kChunk = 1 << 22;

uint64_t bytes_of(TensorType type, int64_t elements) {
  return files::bytes_of(type, static_cast<uint64_t>(elements)).value();
}

std::span<const std::byte> stored_bytes(const Piece& numbers) {
  const files::StoredTensor& tensor = numbers.part->tensor;
  return tensor.bytes.subspan(bytes_of(tensor.type, numbers.begin), bytes_of(tensor.type, numbers.end - numbers.begin));
}

/// NaN when there is one: as integers, infinities and NaN exceed all numbers.
float largest_magnitude(std::span<const float> values) {
  uint32_t largest = 0;
  for (const float value : values) largest = std::max(largest, std::bit_cast<uint32_t>(value) & 0x7FFFFFFF);
  return std::bit_cast<float>(largest);
}

/// Decodes a piece on all cores and hands over runs of it: use(values, place of the first within the piece).
template <typename Use>
void for_each_run(const Piece& piece, const Use& use) {
  const Source::Part& part = *piece.part;
  const int64_t size = piece.end - piece.begin;
  at::parallel_for(0, (size + kRun - 1) / kRun, 1, [&](int64_t first, int64_t last) {
    std::vector<float> buffer(kRun);
    for (int64_t run = first; run < last; ++run) {
      const int64_t from = run * kRun, to = std::min(from + kRun, size);
      const std::span<float> values(buffer.data(), static_cast<size_t>(to - from));
      weights::decode_f32(part.tensor.type, stored_bytes({&part, piece.begin + from, piece.begin + to}), values,
                          part.scale);
      const float largest = largest_magnitude(values);
      base::check(largest <= kAnyFinite, ErrorKind::corrupt_file,
                  "{}: holds NaN or infinity; the file is damaged or its training went wrong", part.tensor.where());
      use(values, from, largest);
    }
  });
}

// ---- One file -------------------------------------------------------------------------------------------------------

class Writer {
 public:
  Writer(const ConvertOptions& options, int64_t tensors) : options_(options), tensors_(tensors) {}

  WrittenFile write(FilePlan& plan, const fs::path& path) {
    measure_scales(plan);
    files::TensorTable table{.metadata = plan.metadata};
    for (const OutputTensor& tensor : plan.tensors) table.entries.push_back(tensor.entry);
    const bool gguf = plan.container == Container::gguf;
    base::AtomicFile file(path);
    file.write(gguf ? files::make_gguf_header(table) : files::make_safetensors_header(table));
    WrittenFile written{.path = path, .component = plan.component};
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
      base::check(file.size() == table.entries[i].offset, ErrorKind::internal,
                  "{}: tensor {} starts at {}, its header says {}", path.string(), table.entries[i].name, file.size(),
                  table.entries[i].offset);
      write_tensor(plan.tensors[i], file);
      if (gguf) file.write(std::string(-file.size() % files::kGgufAlignment, '\0'));
      ++written.types[plan.tensors[i].entry.type];
      report("convert", ++done_, tensors_);
    }
    file.commit();
    written.bytes = file.size();
    return written;
  }

 private:
  void report(std::string_view stage, int64_t done, int64_t total) const {
    if (options_.progress) options_.progress({.stage = stage, .done = done, .total = total});
  }

  /// Splits a piece into chunks; each is forgotten by the system once it has been used.
  template <typename Use>
  void for_each_chunk(const Piece& piece, const Use& use) const {
    for (int64_t begin = piece.begin; begin < piece.end; begin += kChunk) {
      if (options_.cancel) options_.cancel->throw_if_requested();
      const Piece chunk{piece.part, begin, std::min(begin + kChunk, piece.end)};
      use(chunk);
      piece.part->tensor.file->release(stored_bytes(chunk));
    }
    piece.part->tensor.file->release(stored_bytes(piece));  // also the pages that lie across two chunks
  }

  // The scales stand before the weights in the file, so all of these are read twice.
  void measure_scales(FilePlan& plan) const {
    const auto to_measure = std::ranges::count_if(plan.tensors, &OutputTensor::measured);
    int64_t done = 0;
    std::map<std::string, float> scales;
    for (OutputTensor& tensor : plan.tensors) {
      if (tensor.measured) {
        const float largest = largest_of(tensor.pieces);
        tensor.scale = largest > 0 ? largest / largest_number(tensor.entry.type) : 1.0f;
        report("measure", ++done, to_measure);
      }
      scales[tensor.entry.name] = tensor.scale;
    }
    for (OutputTensor& tensor : plan.tensors)
      if (!tensor.scale_of.empty()) tensor.scale = scales.at(tensor.scale_of);
  }

  float largest_of(const std::vector<Piece>& pieces) const {
    float all = 0;
    for (const Piece& piece : pieces) {
      for_each_chunk(piece, [&](const Piece& chunk) {
        std::vector<float> largest((kChunk + kRun - 1) / kRun);
        for_each_run(chunk, [&](std::span<float>, int64_t first, float value) {
          largest[static_cast<size_t>(first / kRun)] = value;
        });
        all = std::max(all, std::ranges::max(largest));
      });
    }
    return all;
  }

  void write_tensor(const OutputTensor& tensor, base::AtomicFile& file) {
    if (!tensor.scale_of.empty()) file.write(std::as_bytes(std::span(&tensor.scale, 1)));
    for (const Piece& piece : tensor.pieces) {
      const bool same = piece.part->tensor.type == tensor.entry.type && piece.part->scale == tensor.scale;
      for_each_chunk(piece, [&](const Piece& chunk) {
        if (!same) return file.write(encode(tensor, chunk));
        for_each_run(chunk, [](std::span<float>, int64_t, float) {});  // refuses NaN
        file.write(stored_bytes(chunk));
      });
    }
  }

  std::span<const std::byte> encode(const OutputTensor& tensor, const Piece& chunk) {
    const TensorType type = tensor.entry.type;
    const float limit = tensor.measured ? kAnyFinite : largest_number(type);
    buffer_.resize(bytes_of(type, chunk.end - chunk.begin));
    for_each_run(chunk, [&](std::span<float> values, int64_t first, float largest) {
      base::check(largest <= limit, ErrorKind::bad_input,
                  "{}: holds a number of magnitude {}, {} ends at {}; use --type bf16 or f32",
                  chunk.part->tensor.where(), largest, files::name(type), limit);
      if (tensor.measured)
        for (float& value : values) value /= tensor.scale;
      const uint64_t begin = bytes_of(type, first), size = bytes_of(type, static_cast<int64_t>(values.size()));
      weights::encode(type, values, std::span(buffer_).subspan(begin, size));
    });
    return buffer_;
  }

  const ConvertOptions& options_;
  int64_t tensors_, done_ = 0;
  std::vector<std::byte> buffer_;
};

// ---- Input and output -----------------------------------------------------------------------------------------------

struct Input {
  std::vector<FileGroup> groups;
  std::map<Component, const TensorIndex*> parts;
  std::vector<std::string> notes;

  std::string part_names() const {
    std::vector<std::string_view> names;
    for (const auto& [component, index] : parts) names.push_back(weights::name(component));
    return fmt::format("the {}", fmt::join(names, ", the "));
  }
};

Input open_input(const fs::path& path, const ConvertOptions& options) {
  Input input{.groups = open_files(path)};
  size_t unknown = 0;
  std::string example;
  for (const FileGroup& group : input.groups) {
    for (const auto& [component, index] : group.checkpoint.parts) {
      if (options.part.value_or(component) != component) continue;
      const auto [place, first] = input.parts.try_emplace(component, &index);
      base::check(first, ErrorKind::conflict,
                  "{} and {} both hold a {}; give the one of the two to convert, or another --part",
                  place->second->where(), index.where(), weights::name(component));
    }
    unknown += group.checkpoint.unknown.size();
    if (example.empty() && unknown > 0) example = group.checkpoint.unknown.front().where();
  }
  base::check(!input.parts.empty(), ErrorKind::bad_input, "{}: holds no {}", path.string(),
              options.part ? weights::name(*options.part) : "part of a FLUX.1 model (transformer, VAE, CLIP or T5)");
  if (unknown > 0)
    input.notes.push_back(
        fmt::format("{} tensor{} of no FLUX.1 part left out ({})", unknown, unknown == 1 ? "" : "s", example));
  return input;
}

std::optional<Container> container_of(const fs::path& out) {
  const std::string extension = out.extension().string();
  if (extension == ".gguf") return Container::gguf;
  if (extension == ".safetensors" || extension == ".sft") return Container::safetensors;
  return std::nullopt;
}

void check_type(const ConvertOptions& options, const fs::path& out) {
  if (!options.type) return;
  const files::TypeTraits& type = files::traits(*options.type);
  base::check(files::is_real(type.type) && type.type != TensorType::f64, ErrorKind::bad_input,
              "--type is {}, expected one of {}", type.name, kConvertTypes);
  const std::optional<Container> container = container_of(out);
  base::check(container != Container::safetensors || !type.safetensors.empty(), ErrorKind::bad_input,
              "{}: safetensors cannot hold {}; name a .gguf file or a folder", out.string(), type.name);
  base::check(container != Container::gguf || type.ggml >= 0, ErrorKind::bad_input,
              "{}: GGUF cannot hold {}; name a .safetensors file, or use --type q8_0", out.string(), type.name);
  base::check(container || options.layout == Layout::bfl || !type.safetensors.empty(), ErrorKind::bad_input,
              "{}: a diffusers folder cannot hold {}, only safetensors; use --layout bfl, name a .gguf file, or use "
              "--type bf16",
              out.string(), type.name);
}

bool lies_in(const fs::path& file, const fs::path& folder) {
  const auto [in_folder, in_file] = std::ranges::mismatch(folder, file);
  return in_folder == folder.end();
}

/// Also for a folder: nothing that is read may be replaced while it is mapped.
void check_output(const fs::path& out, const Input& input, const ConvertOptions& options) {
  const fs::path parent = fs::absolute(out).parent_path();
  base::check(fs::is_directory(parent), ErrorKind::not_found, "{}: there is no folder {}", out.string(),
              parent.string());
  if (!fs::exists(out)) return;
  const fs::path real = fs::canonical(out);
  for (const FileGroup& group : input.groups)
    for (const files::TensorFile& file : group.files)
      base::check(!lies_in(fs::canonical(file.path), real), ErrorKind::bad_input,
                  "{}: is {} the input; name another output", out.string(),
                  fs::is_directory(out) ? "or holds" : "itself");
  const bool folder = fs::is_directory(out);
  base::check(folder != container_of(out).has_value(), ErrorKind::bad_input, "{}: is a {}, expected a {}", out.string(),
              folder ? "folder" : "file", folder ? "file" : "folder (file names end in .safetensors or .gguf)");
  base::check(options.existing == ConvertOptions::Existing::replace || (folder && fs::is_empty(out)),
              ErrorKind::bad_input, "{}: exists already; add --force to replace it, or name another output",
              out.string());
}

void check_space(const fs::path& out, uint64_t need) {
  std::error_code unknown;
  const fs::space_info space = fs::space(fs::absolute(out).parent_path(), unknown);
  base::check(unknown || space.available >= need, ErrorKind::bad_input,
              "{}: needs {} of disk space, {} are free there; "
              "free some, name an output on another disk, or choose a smaller --type",
              out.string(), bytes_text(need), bytes_text(space.available));
}

// ---- A file ---------------------------------------------------------------------------------------------------------

Component part_for_file(Input& input, const fs::path& in) {
  if (input.parts.size() == 1) return input.parts.begin()->first;
  base::check(input.parts.contains(Component::transformer), ErrorKind::bad_input,
              "{}: holds {}; say which goes into one file with --part, or name a folder", in.string(),
              input.part_names());
  input.notes.push_back(
      fmt::format("{} holds {}; the transformer was converted, --part names another", in.string(), input.part_names()));
  return Component::transformer;
}

ConvertResult convert_file(Input input, const fs::path& in, const fs::path& out, const ConvertOptions& options) {
  const Component part = part_for_file(input, in);
  FilePlan plan = plan_file(*input.parts.at(part),
                            {.container = *container_of(out), .layout = options.layout, .type = options.type});
  check_space(out, plan.bytes());
  Writer writer(options, static_cast<int64_t>(plan.tensors.size()));
  return {.files = {writer.write(plan, out)}, .notes = std::move(input.notes)};
}

// ---- A folder -------------------------------------------------------------------------------------------------------

/// A new folder is written beside its place and renamed when it is whole; into one that exists, files go one by one.
class StagedFolder {
 public:
  explicit StagedFolder(const fs::path& place) : place_(place), path_(place) {
    if (fs::exists(place)) return;
    std::string name = place.string() + ".partial-XXXXXX";
    base::check(::mkdtemp(name.data()) != nullptr, ErrorKind::bad_input, "{}: cannot create a folder there: {}",
                place.string(), std::strerror(errno));
    path_ = name;
    const mode_t mask = ::umask(0);  // mkdtemp lets nobody else in
    ::umask(mask);
    ::chmod(path_.c_str(), 0777 & ~mask);
  }
  ~StagedFolder() {
    std::error_code ignored;
    if (path_ != place_) fs::remove_all(path_, ignored);
  }
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const fs::path& path() const { return path_; }
  void commit() {
    std::error_code error;
    if (path_ != place_) fs::rename(path_, place_, error);
    base::check(!error, ErrorKind::bad_input, "{}: cannot rename the finished folder into place: {}", place_.string(),
                error.message());
    path_ = place_;
  }

 private:
  fs::path place_, path_;
};

/// Where a part lies in the folder.
fs::path file_for(Component component, Container container, Layout layout) {
  if (layout == Layout::diffusers) {
    const bool diffusers_class = component == Component::transformer || component == Component::vae;
    return fs::path(diffusers_folder(component)) /
           (diffusers_class ? "diffusion_pytorch_model.safetensors" : "model.safetensors");
  }
  const std::string ending = container == Container::gguf ? ".gguf" : ".safetensors";
  switch (component) {
    case Component::transformer: return "flux1" + ending;
    case Component::vae: return "ae" + ending;
    case Component::clip: return "clip_l" + ending;
    case Component::t5: return "t5xxl" + ending;
  }
  return {};
}

Container container_for(const TensorIndex& index, const ConvertOptions& options) {
  const bool may_be_gguf = index.component == Component::transformer || index.component == Component::t5;
  if (options.layout == Layout::diffusers || !may_be_gguf) return Container::safetensors;
  if (options.type) return files::is_block(*options.type) ? Container::gguf : Container::safetensors;
  for (const auto& [name, source] : index.tensors)
    for (const Source::Part& part : source.parts)
      if (files::is_block(part.tensor.type)) return Container::gguf;
  return Container::safetensors;
}

/// Two files of the same part make a folder useless, so an old one must not stay beside the new.
void check_no_other(const fs::path& folder, const fs::path& file) {
  const fs::path place = (folder / file).parent_path();
  if (!fs::is_directory(place)) return;
  for (const auto& entry : fs::directory_iterator(place)) {
    const fs::path name = entry.path().filename();
    const bool checkpoint = container_of(name).has_value() || name.string().ends_with(".index.json");
    const bool same_part = file.has_parent_path() || name.stem() == file.stem();  // diffusers: a folder for each part
    base::check(!checkpoint || !same_part || name == file.filename(), ErrorKind::bad_input,
                "{}: would stand beside the new {} and be read too; remove it or name another output",
                entry.path().string(), file.filename().string());
  }
}

void write_json(const fs::path& path, const nlohmann::json& content) { base::write_file(path, content.dump(2) + "\n"); }

void write_tokenizer(const fs::path& from, const fs::path& to, const nlohmann::json& default_config) {
  constexpr uint64_t kLargest = 64 << 20;
  fs::create_directory(to);
  std::set<std::string_view> copied;
  for (const char* name : {"vocab.json", "merges.txt", "spiece.model", "tokenizer.json", "added_tokens.json",
                           "special_tokens_map.json", "tokenizer_config.json"}) {
    if (!fs::is_regular_file(from / name)) continue;
    base::write_file(to / name, base::read_file(from / name, kLargest));
    copied.insert(name);
  }
  base::check(!copied.empty(), ErrorKind::not_found,
              "{}: holds no tokenizer, expected tokenizer.json, vocab.json or spiece.model", from.string());
  if (!copied.contains("tokenizer_config.json")) write_json(to / "tokenizer_config.json", default_config);
}

/// Everything of a diffusers folder but the weights; model_index.json last, because it is what makes a folder a model.
void write_descriptions(const fs::path& folder, const Input& input, const ModelBundle& bundle,
                        const ConvertOptions& options) {
  std::set<Component> parts;
  for (const auto& [component, index] : input.parts) {
    parts.insert(component);
    write_json(folder / diffusers_folder(component) / "config.json", part_config(*index));
    if (component == Component::clip)
      write_tokenizer(bundle.clip_tokenizer, folder / "tokenizer",
                      tokenizer_config(component, text::clip_config(*index).positions));
    if (component == Component::t5)
      write_tokenizer(bundle.t5_tokenizer, folder / "tokenizer_2", tokenizer_config(component, 512));
  }
  if (options.part) return;  // it may join the other parts in a folder that has these already
  fs::create_directory(folder / "scheduler");
  write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(bundle.schedule));
  write_json(folder / "model_index.json", model_index(parts));
}

void note_missing(Input& input) {
  for (const Component component : {Component::transformer, Component::vae, Component::clip, Component::t5})
    if (!input.parts.contains(component))
      input.notes.push_back(fmt::format("the input has no {}, so neither has the output", weights::name(component)));
}

ConvertResult convert_folder(Input input, const fs::path& in, const fs::path& out, const ConvertOptions& options) {
  std::map<fs::path, FilePlan> plans;
  uint64_t need = 0;
  int64_t tensors = 0;
  for (const auto& [component, index] : input.parts) {
    if (options.layout == Layout::diffusers) check_fits_diffusers(*index);
    const Container container = container_for(*index, options);
    FilePlan plan = plan_file(*index, {.container = container, .layout = options.layout, .type = options.type});
    need += plan.bytes();
    tensors += static_cast<int64_t>(plan.tensors.size());
    const fs::path name = file_for(component, container, options.layout);
    check_no_other(out, name);
    plans.emplace(name, std::move(plan));
  }
  check_space(out, need);
  if (!options.part) note_missing(input);
  const bool diffusers = options.layout == Layout::diffusers;
  const ModelBundle bundle = diffusers ? open_partial_bundle({.model = in}) : ModelBundle();  // tokenizers and schedule

  StagedFolder folder(out);
  Writer writer(options, tensors);
  ConvertResult result{.files = {}, .notes = input.notes};
  for (auto& [name, plan] : plans) {
    const fs::path path = folder.path() / name;
    if (name.has_parent_path()) fs::create_directory(path.parent_path());
    result.files.push_back(writer.write(plan, path));
    result.files.back().path = out / name;
  }
  if (diffusers) write_descriptions(folder.path(), input, bundle, options);
  folder.commit();
  return result;
}

}  // namespace

ConvertResult convert(const fs::path& in, const fs::path& out, const ConvertOptions& options) try {
  const fs::path place = out.has_filename() ? out : out.parent_path();  // "folder/" is "folder"
  check_type(options, place);
  Input input = open_input(in, options);
  check_output(place, input, options);
  return container_of(place) ? convert_file(std::move(input), in, place, options)
                             : convert_folder(std::move(input), in, place, options);
} catch (const fs::filesystem_error& error) {
  base::fail(ErrorKind::bad_input, "{}: {}", error.path1().string(), error.code().message());
}

}  // namespace calotype::pipeline
