// The index of a checkpoint in several files: no name may lead out of its folder.
#include "files/shard_index.h"

#include "fuzz.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  std::map<std::string, std::string> shards;
  if (!accepted([&] { shards = files::parse_shard_index(input, kSource); })) return;
  const std::filesystem::path folder = "/models/flux";
  for (const auto& [tensor, shard] : shards) {
    const std::filesystem::path path = folder / shard;
    require(path.parent_path() == folder && path.lexically_normal() == path, "a shard lies in the index's folder");
    require(shard.size() < 256 && shard.find('\0') == std::string::npos, "the name is one that a file can have");
  }
}

}  // namespace calotype::fuzz
