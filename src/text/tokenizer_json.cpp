#include "text/tokenizer_json.h"

#include "base/atomic_file.h"
#include "base/error.h"

namespace calotype::text {
namespace {

using base::ErrorKind;
using nlohmann::json;

constexpr int kDeepest = 16;
// A value takes up to 50 bytes in memory, a byte in the file: without a cap 64 MB of "[],[],…" become gigabytes.
constexpr size_t kMostValues = 4 * kMostIds;

json parse(const TokenizerFile& file) {
  size_t values = 0;
  const auto bounded = [&](int depth, json::parse_event_t event, json&) {
    base::check(depth <= kDeepest, ErrorKind::corrupt_file, "{}: nested more than {} levels deep", file.name, kDeepest);
    base::check(
        event == json::parse_event_t::object_end || event == json::parse_event_t::array_end || ++values <= kMostValues,
        ErrorKind::corrupt_file, "{}: more than {} values", file.name, kMostValues);
    return true;
  };
  try {
    return json::parse(file.bytes, bounded);
  } catch (const json::exception& error) {
    base::fail(ErrorKind::corrupt_file, "{}: not valid JSON: {}", file.name, base::printable(error.what(), 200));
  }
}

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

JsonDocument::JsonDocument(const TokenizerFile& file) : name_(file.name), json_(parse(file)) {}

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
