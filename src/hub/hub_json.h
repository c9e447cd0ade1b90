// Fields of a hub's answers, which may be missing or of another type than they should be.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "hub/http_client.h"

namespace calotype::hub {

/// Errors: corrupt_file for what is not JSON within limits.
nlohmann::json parsed(const HttpResponse& answer);

/// "" and nothing for absent fields and those of another type.
std::string text_field(const nlohmann::json& object, const char* name);
std::optional<uint64_t> number_field(const nlohmann::json& object, const char* name);
/// A null for absent fields; may be of any type.
const nlohmann::json& field(const nlohmann::json& object, const char* name);

/// Is `text` this many lower-case hexadecimal digits?
bool is_hex(std::string_view text, size_t digits);

}  // namespace calotype::hub
