#include "hub/hub_json.h"

#include <algorithm>

#include "files/bounded_json.h"

namespace calotype::hub {

using nlohmann::json;

json parsed(const HttpResponse& answer) {
  return files::parse_bounded_json(answer.body, "answer of " + shown_url(answer.url));
}

const json& field(const json& object, const char* name) {
  static const json nothing;
  if (!object.is_object()) return nothing;
  const auto found = object.find(name);
  return found == object.end() ? nothing : *found;
}

std::string text_field(const json& object, const char* name) {
  const json& value = field(object, name);
  return value.is_string() ? value.get<std::string>() : "";
}

std::optional<uint64_t> number_field(const json& object, const char* name) {
  const json& value = field(object, name);
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<uint64_t>();
}

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace calotype::hub
