#include "hub/model_card.h"

#include <algorithm>

#include "base/error.h"

namespace calotype::hub {
namespace {

constexpr size_t kMaxCardLines = 2000;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

std::string_view next_line(std::string_view& rest) {
  const size_t end = std::min(rest.find('\n'), rest.size());
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return line.ends_with('\r') ? line.substr(0, line.size() - 1) : line;
}

/// A YAML scalar without quotes and comment; the first one of a list.
std::string scalar(std::string_view value) {
  value = trimmed(value);
  if (value.starts_with('[')) value = trimmed(value.substr(1, std::min(value.find_first_of(",]"), value.size()) - 1));
  if (value.starts_with("- ")) value = trimmed(value.substr(2));
  if (!value.empty() && (value.front() == '"' || value.front() == '\'')) {
    const size_t end = value.find(value.front(), 1);
    value = value.substr(1, end == std::string_view::npos ? end : end - 1);
  } else if (value.starts_with('#')) {
    value = "";
  } else {
    value = trimmed(value.substr(0, value.find(" #")));
  }
  return base::printable(value, 200);
}

}  // namespace

Licence licence_of_card(std::string_view readme) {
  Licence licence;
  if (readme.starts_with("\xEF\xBB\xBF")) readme.remove_prefix(3);
  if (trimmed(next_line(readme)) != "---") return licence;
  std::string* list = nullptr;  // the field whose list the following lines are
  for (size_t line_number = 0; line_number < kMaxCardLines && !readme.empty(); ++line_number) {
    const std::string_view line = next_line(readme);
    if (trimmed(line) == "---") return licence;
    if (list && list->empty() && trimmed(line).starts_with("- ")) *list = scalar(line);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || line.starts_with(' ') || line.starts_with('-') || line.starts_with('#'))
      continue;
    const std::string_view key = trimmed(line.substr(0, colon));
    list = key == "license"        ? &licence.id
           : key == "license_name" ? &licence.name
           : key == "license_link" ? &licence.link
           : key == "base_model"   ? &licence.base_model
                                   : nullptr;
    if (list) *list = scalar(line.substr(colon + 1));
  }
  return Licence{};  // the block does not end: it is none
}

}  // namespace calotype::hub
