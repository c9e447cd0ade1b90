// Fields of a JSON body that are read one by one, without a schema. Absent and null are the same.
//
//   const int count = whole_number(body, "n", 1, 10, 1);
//
// Pure functions. Problem 422 naming the field for a value of another kind.
#pragma once

#include "server/http_message.h"

namespace calotype::server {

/// The field's value, null when it is absent or null; belongs to `body`.
const Json* given(const Json& body, const std::string& name);
std::string string_or(const Json& body, const std::string& name, const std::string& otherwise);
std::string required_string(const Json& body, const std::string& name);
/// From `low` to `high`.
int whole_number(const Json& body, const std::string& name, int low, int high, int otherwise);

}  // namespace calotype::server
