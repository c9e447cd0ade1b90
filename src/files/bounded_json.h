// JSON from strangers: refused before it takes memory when it nests too deep or holds too much.
//
//   const nlohmann::json config = parse_bounded_json(text, "transformer/config.json");
//
// Thread-safe.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

namespace calotype::files {

struct JsonLimits {
  int depth = 32;             ///< objects and arrays inside each other
  size_t values = 1'000'000;  ///< keys and values of all levels; one takes up to 100 bytes in memory
};

/// Errors: corrupt_file naming `source` and the place for what is not valid JSON in UTF-8 or is beyond the limits.
nlohmann::json parse_bounded_json(std::string_view text, std::string_view source, const JsonLimits& limits = {});

}  // namespace calotype::files
