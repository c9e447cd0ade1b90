// The header of GGUF files: parsed, checked, written again and read back.
#include "files/gguf.h"

#include "fuzz.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  files::TensorTable table;
  if (!accepted([&] { table = files::parse_gguf(bytes_of(input), kSource); })) return;
  check_table(table, input.size());

  std::string copy = files::make_gguf_header(table);
  require(copy.size() % files::kGgufAlignment == 0, "data starts at the alignment");
  for (const files::TensorEntry& entry : table.entries)
    copy.resize((copy.size() + entry.size + files::kGgufAlignment - 1) / files::kGgufAlignment * files::kGgufAlignment);
  check_same(table, files::parse_gguf(bytes_of(copy), kSource));
}

}  // namespace calotype::fuzz
