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

constexpr std::string_view kArchive =
    "a zip archive or PyTorch pickle (.ckpt, .pt, .bin); convert it to safetensors first";
constexpr std::string_view kPickle =
    "a Python pickle; it could run code when opened and is refused, convert it to safetensors first";
constexpr std::string_view kWebPage =
    "a web page, so the download went wrong (is the model gated, and are you signed in?)";

// What users pass by mistake: downloads that are no model, and formats that can run code when opened.
constexpr Signature kForeign[] = {
    {"PK\x03\x04", kArchive},
    {"\x80\x02", kPickle},
    {"\x80\x03", kPickle},
    {"\x80\x04", kPickle},
    {"\x80\x05", kPickle},
    {"version https://git-lfs", "a Git LFS pointer, not the model itself; fetch it with `git lfs pull`"},
    {"<!", kWebPage},
    {"<html", kWebPage},
    {"<HTML", kWebPage},
    {"<?xml", kWebPage},
    {"Access to model", "a hub's refusal; accept the model's licence there and sign in to download it"},
    {"Entry not found", "a hub's error message; the file does not exist there"},
    {"\x89PNG", "a PNG picture"},
    {"\xFF\xD8\xFF", "a JPEG picture"},
    {"\x1F\x8B", "a gzip archive; unpack it first"},
    {"{", "a JSON text"},
};

void refuse_foreign(std::string_view start, const std::filesystem::path& path) {
  start.remove_prefix(std::min(start.find_first_not_of(" \t\r\n"), start.size()));
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
    // A safetensors file starts with its header's length, which may be any signature: 640 bytes are those of a pickle.
    if (!looks_like_safetensors(file->bytes())) refuse_foreign(start, path);
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
