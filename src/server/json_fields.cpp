#include "server/json_fields.h"

#include <fmt/format.h>

#include "server/problem.h"

namespace calotype::server {

std::string string_or(const Json& body, const std::string& name, const std::string& otherwise) {
  const auto found = body.find(name);
  if (found == body.end() || found->is_null()) return otherwise;
  if (!found->is_string()) throw invalid_field(name, "Must be a string.", "invalid_type");
  return found->get<std::string>();
}

int whole_number(const Json& body, const std::string& name, int low, int high, int otherwise) {
  const auto found = body.find(name);
  if (found == body.end() || found->is_null()) return otherwise;
  if (!found->is_number_integer() || *found < low || *found > high)
    throw invalid_field(name, fmt::format("Must be a whole number from {} to {}.", low, high));
  return found->get<int>();
}

}  // namespace calotype::server
