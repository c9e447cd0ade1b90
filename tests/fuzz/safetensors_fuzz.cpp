// The header of safetensors files: parsed, checked, written again and read back.
#include "files/safetensors.h"

#include "fuzz.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  files::TensorTable table;
  if (!accepted([&] { table = files::parse_safetensors(bytes_of(input), kSource); })) return;
  require(files::looks_like_safetensors(bytes_of(input)), "what is safetensors looks like it");
  check_table(table, input.size());

  std::string copy = files::make_safetensors_header(table);
  for (const files::TensorEntry& entry : table.entries) copy.resize(copy.size() + entry.size);
  check_same(table, files::parse_safetensors(bytes_of(copy), kSource));
}

}  // namespace calotype::fuzz
