#include "text/tokenizer_json.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/bounded_json.h"

namespace calotype::text {
namespace {

using base::ErrorKind;
using nlohmann::json;

// CLIP's has 250,000. Ten bytes of file can make a value, which takes up to 100 in memory.
constexpr files::JsonLimits kLimits = {.depth = 16, .values = 3'000'000};

}  // namespace

TokenizerFile read_tokenizer_file(const std::filesystem::path& path) {
  return {.name = path.string(), .bytes = base::read_file(path, kMostTokenizerBytes)};
}

bool file_exists(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

bool is_folder(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored);
}

JsonDocument::JsonDocument(const TokenizerFile& file)
    : name_(file.name), json_(files::parse_bounded_json(file.bytes, file.name, kLimits)) {}

std::string JsonValue::where() const {
  return fmt::format("{}: {}", file_, path_.empty() ? "the whole file" : base::printable(path_));
}

void JsonValue::fail_type(std::string_view expected) const {
  base::fail(ErrorKind::corrupt_file, "{} is {} {}, expected {}", where(), json_->type_name(),
             base::printable(json_->is_structured() ? "" : json_->dump(), 60), expected);
}

void JsonValue::fail_unsupported(std::string_view expected, std::string_view tokenizer) const {
  base::fail(ErrorKind::unsupported, "{} is {}, expected {}: not a {} tokenizer", where(),
             base::printable(json_->dump(), 200), expected, tokenizer);
}

std::optional<JsonValue> JsonValue::find(std::string_view key) const {
  const auto member = object().json_->find(key);
  if (member == json_->end() || member->is_null()) return std::nullopt;
  return JsonValue(*member, file_, path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key));
}

JsonValue JsonValue::at(std::string_view key) const {
  auto member = find(key);
  base::check(member.has_value(), ErrorKind::corrupt_file, "{} has no \"{}\"", where(), key);
  return *std::move(member);
}

JsonValue JsonValue::at(size_t index) const {
  base::check(index < array().size(), ErrorKind::corrupt_file, "{} has {} elements, expected more", where(), size());
  return {(*json_)[index], file_, fmt::format("{}[{}]", path_, index)};
}

const JsonValue& JsonValue::array() const {
  if (!json_->is_array()) fail_type("an array");
  return *this;
}

const JsonValue& JsonValue::object() const {
  if (!json_->is_object()) fail_type("an object");
  return *this;
}

const std::string& JsonValue::string() const {
  if (!json_->is_string()) fail_type("a string");
  return json_->get_ref<const std::string&>();
}

double JsonValue::number() const {
  if (!json_->is_number()) fail_type("a number");
  return json_->get<double>();
}

int64_t JsonValue::integer(int64_t low, int64_t high) const {
  // Unsigned first: numbers above 2^63 would wrap in get<int64_t>().
  const bool fits = json_->is_number_integer() &&
                    !(json_->is_number_unsigned() && json_->get<uint64_t>() >= static_cast<uint64_t>(high)) &&
                    json_->get<int64_t>() >= low && json_->get<int64_t>() < high;
  if (!fits) fail_type(fmt::format("a whole number from {} to {}", low, high - 1));
  return json_->get<int64_t>();
}

bool JsonValue::boolean() const {
  if (!json_->is_boolean()) fail_type("true or false");
  return json_->get<bool>();
}

}  // namespace calotype::text
