#include "files/tensor_file.h"

#include <fmt/ranges.h>

#include "base/error.h"
#include "files/gguf.h"
#include "files/safetensors.h"

namespace calotype::files {

using base::ErrorKind;

namespace {

struct Signature {
  std::string_view start, meaning;
};

// What users pass by mistake: downloads that are no model, and formats that can run code when opened.
constexpr Signature kForeign[] = {
    {"PK\x03\x04", "a zip archive or PyTorch pickle (.ckpt, .pt, .bin); convert it to safetensors first"},
    {"\x80\x02", "a Python pickle; it could run code when opened and is refused, convert it to safetensors first"},
    {"\x80\x04", "a Python pickle; it could run code when opened and is refused, convert it to safetensors first"},
    {"version https://git-lfs", "a Git LFS pointer, not the model itself; fetch it with `git lfs pull`"},
    {"<!", "a web page, so the download went wrong (is the model gated, and are you signed in?)"},
    {"<html", "a web page, so the download went wrong (is the model gated, and are you signed in?)"},
    {"\x89PNG", "a PNG picture"},
    {"\xFF\xD8\xFF", "a JPEG picture"},
    {"\x1F\x8B", "a gzip archive; unpack it first"},
    {"Entry not found", "a hub's error message; the file does not exist there"},
    {"{", "a JSON text"},
};

void refuse_foreign(std::string_view start, const std::filesystem::path& path) {
  for (const Signature& foreign : kForeign)
    base::check(!start.starts_with(foreign.start), ErrorKind::unsupported,
                "{}: this is {}; expected safetensors or GGUF", path.string(), foreign.meaning);
}

}  // namespace

std::string_view name(Container container) { return container == Container::gguf ? "GGUF" : "safetensors"; }

std::optional<uint64_t> element_count(const std::vector<int64_t>& shape) {
  uint64_t count = 1;
  for (const int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(count, static_cast<uint64_t>(extent), &count)) return std::nullopt;
  return count;
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

int64_t StoredTensor::elements() const { return static_cast<int64_t>(element_count(shape).value_or(0)); }

std::string StoredTensor::where() const {
  return fmt::format("{}: tensor {}", file ? file->path().string() : "memory", base::printable(name));
}

TensorFile open_tensor_file(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  const std::string_view start(reinterpret_cast<const char*>(file->bytes().data()),
                               std::min<size_t>(file->bytes().size(), 64));
  TensorFile out{.path = path};
  TensorTable table;
  if (start.starts_with("GGUF")) {
    out.container = Container::gguf;
    table = parse_gguf(file->bytes(), path.string());
  } else {
    refuse_foreign(start, path);
    table = parse_safetensors(file->bytes(), path.string());
  }
  out.metadata = std::move(table.metadata);
  out.tensors.reserve(table.entries.size());
  for (TensorEntry& entry : table.entries)
    out.tensors.push_back({.name = std::move(entry.name),
                           .type = entry.type,
                           .shape = std::move(entry.shape),
                           .bytes = file->bytes().subspan(entry.offset, entry.size),
                           .file = file});
  return out;
}

}  // namespace calotype::files
