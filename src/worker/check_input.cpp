#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/utf8.h"
#include "worker/model_catalog.h"

namespace calotype::worker {
namespace {

constexpr size_t kMostElements = 64;
constexpr double kTwoTo64 = 18446744073709551616.0;

/// 4 and 4.0, as JSON schemas count them.
bool is_whole(const Json& value) {
  if (value.is_number_integer()) return true;
  return value.is_number_float() && std::isfinite(value.get<double>()) &&
         std::trunc(value.get<double>()) == value.get<double>();
}

std::optional<uint64_t> digits(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Nothing for what is no seed; −1, which asks for a random one, is no seed either.
std::optional<uint64_t> seed_value(const Json& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_string()) return digits(value.get<std::string>());
  if (value.is_number_float() && is_whole(value) && value.get<double>() >= 0 && value.get<double>() < kTwoTo64)
    return static_cast<uint64_t>(value.get<double>());
  return std::nullopt;
}

bool asks_for_random(const Json& value) {
  return (value.is_number() && value.get<double>() == -1) || value == "-1" || value == "";
}

const char* expected_type(FieldType type) {
  switch (type) {
    case FieldType::integer:
    case FieldType::seed: return "integer";
    case FieldType::number: return "number";
    case FieldType::boolean: return "boolean";
    case FieldType::strings:
    case FieldType::numbers: return "array";
    default: return "string";
  }
}

/// The words of gojsonschema, whose complaints clients of the original API see.
const char* given_type(const Json& value) {
  switch (value.type()) {
    case Json::value_t::string: return "string";
    case Json::value_t::boolean: return "boolean";
    case Json::value_t::object: return "object";
    case Json::value_t::array: return "array";
    case Json::value_t::null: return "null";
    default: return is_whole(value) ? "integer" : "number";
  }
}

std::string number_text(double value) {
  return std::trunc(value) == value ? fmt::format("{:.0f}", value) : fmt::format("{}", value);
}

class Checker {
 public:
  Checker(const Field& field, std::vector<InvalidField>& errors) : field_(field), errors_(errors) {}

  void check(const Json& value) {
    switch (field_.type) {
      case FieldType::integer: return whole(value);
      case FieldType::seed: return seed(value);
      case FieldType::number: return number(value);
      case FieldType::boolean:
        if (!value.is_boolean()) wrong_type(value);
        return;
      case FieldType::file: return file(value);
      case FieldType::strings: return array(value, [this](const Json& element) { text(element); });
      case FieldType::numbers: return array(value, [this](const Json& element) { number(element); });
      case FieldType::string:
      case FieldType::secret: return text(value);
    }
  }

 private:
  void complain(const char* type, std::string description) {
    errors_.push_back({type, "input." + field_.name, std::move(description)});
  }
  void wrong_type(const Json& value) {
    complain("invalid_type",
             fmt::format("Invalid type. Expected: {}, given: {}", expected_type(field_.type), given_type(value)));
  }

  void range(double value) {
    if (field_.minimum && value < *field_.minimum)
      complain("number_gte", "Must be greater than or equal to " + number_text(*field_.minimum));
    if (field_.maximum && value > *field_.maximum)
      complain("number_lte", "Must be less than or equal to " + number_text(*field_.maximum));
  }

  void whole(const Json& value) {
    if (!is_whole(value)) return wrong_type(value);
    if (std::abs(value.get<double>()) >= 2147483648.0)
      return complain(value.get<double>() < 0 ? "number_gte" : "number_lte", "Must fit into 32 bits");
    range(value.get<double>());
  }

  void number(const Json& value) {
    if (!value.is_number() || !std::isfinite(value.get<double>())) return wrong_type(value);
    range(value.get<double>());
  }

  void seed(const Json& value) {
    if (seed_value(value) || asks_for_random(value)) return;
    if (!is_whole(value)) return wrong_type(value);
    if (value.get<double>() < 0) return complain("number_gte", "Must be greater than or equal to 0");
    complain("number_lte", "Must be less than or equal to 18446744073709551615");
  }

  void text(const Json& value) {
    if (!value.is_string()) return wrong_type(value);
    const auto& string = value.get_ref<const std::string&>();
    if (string.find('\0') != std::string::npos) return complain("format", "Must not contain NUL characters");
    if (base::first_broken_utf8(string)) return complain("format", "Must be valid UTF-8");
    if (field_.values.empty()) return;
    std::string list;
    for (const std::string& one : field_.values) {
      if (one == string) return;
      list += (list.empty() ? "\"" : ", \"") + one + "\"";
    }
    complain("enum", "Must be one of the following: " + list);
  }

  void file(const Json& value) {
    if (!value.is_string()) return wrong_type(value);
    const auto& uri = value.get_ref<const std::string&>();
    for (const char* scheme : {"http://", "https://", "data:"})
      if (uri.starts_with(scheme) && uri.size() > std::string_view(scheme).size()) return text(value);
    complain("format", "Does not match format 'uri': expected http://…, https://… or data:…");
  }

  template <typename CheckElement>
  void array(const Json& value, CheckElement check_element) {
    if (!value.is_array()) return wrong_type(value);
    if (value.size() > kMostElements)
      return complain("array_max_items", fmt::format("Array must have at most {} items", kMostElements));
    for (const Json& element : value) check_element(element);
  }

  const Field& field_;
  std::vector<InvalidField>& errors_;
};

}  // namespace

CheckedInput check_input(const ServedModel& model, const Json& input) {
  CheckedInput out{.input = Json::object(), .secrets = {}, .errors = {}};
  if (!input.is_object()) {
    out.errors.push_back(
        {"invalid_type", "input", std::string("Invalid type. Expected: object, given: ") + given_type(input)});
    return out;
  }
  for (const auto& [name, value] : input.items()) {
    if (value.is_null()) continue;
    const Field* field = model.find(name);
    if (!field) {
      out.errors.push_back({"additional_property_not_allowed", "input",
                            "Additional property " + base::printable(name) + " is not allowed"});
      continue;
    }
    Checker(*field, out.errors).check(value);
    if (field->type != FieldType::secret)
      out.input[name] = value;
    else if (value.is_string() && value != "")
      out.secrets[name] = value.get<std::string>();
  }
  for (const Field& field : model.fields)
    if (field.required && (!input.contains(field.name) || input.at(field.name).is_null()))
      out.errors.push_back({"required", "input", field.name + " is required"});
  return out;
}

Json with_defaults(const ServedModel& model, const Json& input) {
  Json out = Json::object();
  for (const Field& field : model.fields) {
    const bool given = input.is_object() && input.contains(field.name) && !input.at(field.name).is_null();
    if (!given) {
      if (!field.default_value.is_null()) out[field.name] = field.default_value;
      continue;
    }
    const Json& value = input.at(field.name);
    if (field.type == FieldType::seed) {
      if (const auto seed = seed_value(value)) out[field.name] = *seed;
    } else if (field.type == FieldType::integer && value.is_number_float()) {
      out[field.name] = static_cast<int64_t>(value.get<double>());
    } else {
      out[field.name] = value;
    }
  }
  return out;
}

std::string detail_text(const std::vector<InvalidField>& errors) {
  std::string out;
  for (const InvalidField& error : errors) out += fmt::format("- {}: {}\n", error.field, error.description);
  return out;
}

}  // namespace calotype::worker
