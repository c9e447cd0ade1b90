#include "files/bounded_json.h"

#include "base/error.h"

namespace calotype::files {
namespace {

using base::ErrorKind;
using nlohmann::json;

/// Walks through a text without keeping anything. nlohmann's own parser callback could count as well, but it looks
/// through all members of the parent after each object: minutes for a list of a million.
class LimitsCheck : public nlohmann::json_sax<json> {
 public:
  LimitsCheck(std::string_view text, std::string_view source, const JsonLimits& limits)
      : text_(text), source_(source), limits_(limits) {}

  bool null() override { return count(); }
  bool boolean(bool) override { return count(); }
  bool number_integer(int64_t) override { return count(); }
  bool number_unsigned(uint64_t) override { return count(); }
  bool number_float(double, const std::string&) override { return count(); }
  bool string(std::string&) override { return count(); }
  bool binary(json::binary_t&) override { return count(); }
  bool key(std::string&) override { return count(); }
  bool start_object(size_t) override { return enter(); }
  bool start_array(size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    constexpr int kNumberOverflow = 406;
    base::check(error.id != kNumberOverflow, ErrorKind::corrupt_file,
                "{}: holds a number that is too large near byte {}", source_, position);
    fail_at(position);
  }

  [[noreturn]] void fail_at(size_t position) {
    base::fail(ErrorKind::corrupt_file, "{}: not valid JSON near byte {} (starts with \"{}\"); the file is damaged",
               source_, position, base::printable(text_.substr(0, 24)));
  }

 private:
  bool count() {
    base::check(++values_ <= limits_.values, ErrorKind::corrupt_file, "{}: holds more than {} keys and values", source_,
                limits_.values);
    return true;
  }
  bool enter() {
    base::check(++depth_ <= limits_.depth, ErrorKind::corrupt_file, "{}: nested more than {} deep", source_,
                limits_.depth);
    return count();
  }
  bool leave() {
    --depth_;
    return true;
  }

  std::string_view text_, source_;
  JsonLimits limits_;
  int depth_ = 0;
  size_t values_ = 0;
};

}  // namespace

json parse_bounded_json(std::string_view text, std::string_view source, const JsonLimits& limits) {
  LimitsCheck check(text, source, limits);
  // nlohmann takes a NUL for the end and ignores what follows.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) check.fail_at(nul + 1);
  json::sax_parse(text, &check);
  return json::parse(text);
}

}  // namespace calotype::files
