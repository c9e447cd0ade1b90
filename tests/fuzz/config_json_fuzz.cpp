// Configuration files: any JSON object, within limits, and nothing else.
#include <nlohmann/json.hpp>

#include "files/shard_index.h"
#include "fuzz.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  nlohmann::json object;
  if (!accepted([&] { object = files::parse_json_object(input, kSource); })) return;
  require(object.is_object(), "only objects are accepted");
  require(files::parse_json_object(object.dump(), kSource) == object, "an object survives writing and reading");
}

}  // namespace calotype::fuzz
