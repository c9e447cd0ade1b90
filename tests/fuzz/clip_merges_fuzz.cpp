// A CLIP tokenizer in three files, which the input holds with a NUL between: vocab.json, merges.txt,
// tokenizer_config.json.
#include <filesystem>
#include <fstream>

#include "fuzz.h"
#include "text/clip_bpe.h"

namespace calotype::fuzz {
namespace fs = std::filesystem;

namespace {

/// A folder with tokenizer_config.json, written anew for each input.
fs::path folder_with_config(const std::string& config) {
  static const fs::path folder = [] {
    std::string name = (fs::temp_directory_path() / "calotype_fuzz.XXXXXX").string();
    require(mkdtemp(name.data()) != nullptr, "there is a temporary folder");
    return fs::path(name);
  }();
  std::ofstream(folder / "tokenizer_config.json", std::ios::binary) << config;
  return folder;
}

}  // namespace

void fuzz_one(std::string_view input) {
  const std::vector<std::string> parts = split(input, 3);
  text::TokenizerConfig config;
  if (!parts[2].empty()) {
    const fs::path folder = folder_with_config(parts[2]);
    if (!accepted([&] { config = text::read_tokenizer_config(folder); }, folder.string())) return;
  }
  std::optional<text::ClipTokenizer> clip;
  const std::string source(kSource);
  const auto parse = [&] {
    clip = text::ClipTokenizer::from_vocab_and_merges({.name = source, .bytes = parts[0]},
                                                      {.name = source, .bytes = parts[1]}, config);
  };
  if (!accepted(parse)) return;
  check_ids({clip->bos(), clip->eos(), clip->pad()}, clip->vocab_size());
  for (const std::string& prompt : prompts_for(parts[1])) check_ids(clip->encode(prompt), clip->vocab_size());
}

}  // namespace calotype::fuzz
