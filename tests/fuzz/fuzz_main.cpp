#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "base/error.h"
#include "base/utf8.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  calotype::fuzz::fuzz_one({reinterpret_cast<const char*>(data), size});
  return 0;
}

// GLib and libvips keep types, threads and caches until the process ends.
extern "C" const char* __lsan_default_suppressions() { return "leak:libglib-2.0\nleak:libgobject-2.0\nleak:libvips\n"; }

namespace calotype::fuzz {

void require(bool holds, std::string_view promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %.*s\n", static_cast<int>(promise.size()), promise.data());
  std::abort();
}

bool accepted(const std::function<void()>& parse, std::string_view source) {
  using base::ErrorKind;
  try {
    parse();
    return true;
  } catch (const base::Error& error) {
    const std::string_view message = error.what();
    const bool blames_input = error.kind() == ErrorKind::bad_input || error.kind() == ErrorKind::corrupt_file ||
                              error.kind() == ErrorKind::unsupported || error.kind() == ErrorKind::conflict;
    require(blames_input, message);
    require(message.starts_with(source), message);
    require(message.size() > source.size() + 10 && message.size() < 2000, message);
    require(!base::first_broken_utf8(message) && base::printable(message, 3000) == message, message);
    return false;
  }
}

std::vector<std::string> split(std::string_view input, size_t count) {
  std::vector<std::string> parts;
  while (parts.size() + 1 < count) {
    const std::string_view part = input.substr(0, input.find('\0'));
    parts.emplace_back(part);
    input.remove_prefix(std::min(input.size(), part.size() + 1));
  }
  parts.emplace_back(input);
  return parts;
}

void check_table(const files::TensorTable& table, uint64_t file_bytes) {
  std::set<std::string> names;
  uint64_t end = 0;
  for (const files::TensorEntry& entry : table.entries) {
    require(names.insert(entry.name).second, "names are unique");
    const auto elements = files::element_count(entry.shape);
    require(elements.has_value(), "the number of elements fits into 64 bits");
    require(files::bytes_of(entry.type, *elements) == entry.size, "size is that of shape and type");
    require(entry.offset >= end, "tensors do not overlap");
    require(entry.offset <= file_bytes && entry.size <= file_bytes - entry.offset, "tensors lie inside the file");
    end = entry.offset + entry.size;
  }
}

void check_same(const files::TensorTable& a, const files::TensorTable& b) {
  require(a.metadata == b.metadata, "metadata survives writing and reading");
  require(a.entries.size() == b.entries.size(), "as many tensors are read as were written");
  for (size_t i = 0; i < a.entries.size(); ++i) {
    const files::TensorEntry &one = a.entries[i], &other = b.entries[i];
    require(one.name == other.name && one.type == other.type && one.shape == other.shape && one.size == other.size,
            "a tensor survives writing and reading");
    require(one.offset == other.offset, "the writer knows where the tensors are");
  }
}

std::vector<std::string> prompts_for(std::string_view input) {
  std::vector<std::string> prompts = {
      "", "a photo of a cat", "don't ½ ﬁ ＜/s＞ e\u0301 İ 猫 👩🏽‍🚀 \u200b\t\r\n x",
      "<|startoftext|><|ENDOFTEXT|></s><pad><extra_id_0>", std::string(1, '\0') + "\x01\x7F!!!!"};
  if (!base::first_broken_utf8(input)) prompts.emplace_back(input);
  return prompts;
}

void check_ids(const std::vector<int32_t>& ids, int32_t vocab_size) {
  for (const int32_t id : ids) require(id >= 0 && id < vocab_size, "ids lie inside the vocabulary");
}

}  // namespace calotype::fuzz
