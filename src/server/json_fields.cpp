#include "server/json_fields.h"

#include <fmt/format.h>

#include "server/problem.h"

namespace calotype::server {

const Json* given(const Json& body, const std::string& name) {
  const auto found = body.find(name);
  return found == body.end() || found->is_null() ? nullptr : &*found;
}

std::string string_or(const Json& body, const std::string& name, const std::string& otherwise) {
  const Json* found = given(body, name);
  if (!found) return otherwise;
  if (!found->is_string())
    throw invalid_field(name, fmt::format("Must be a string, not {}.", found->type_name()), "invalid_type");
  return found->get<std::string>();
}

std::string required_string(const Json& body, const std::string& name) {
  if (!given(body, name)) throw invalid_field(name, name + " is required", "required");
  return string_or(body, name, "");
}

int whole_number(const Json& body, const std::string& name, int low, int high, int otherwise) {
  const Json* found = given(body, name);
  if (!found) return otherwise;
  if (!found->is_number_integer() || *found < low || *found > high)
    throw invalid_field(name, fmt::format("Must be a whole number from {} to {}.", low, high));
  return found->get<int>();
}

}  // namespace calotype::server
