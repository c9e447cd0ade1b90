#include "store/values.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>

#include "base/utf8.h"

namespace calotype::store {
namespace {

constexpr Time kDay = 86'400 * kSecond;

/// Reads exactly `digits` digits at the front of `text` and takes them off.
std::optional<int> take_number(std::string_view& text, size_t digits) {
  int value = 0;
  if (text.size() < digits) return {};
  const auto [end, error] = std::from_chars(text.data(), text.data() + digits, value);
  if (error != std::errc() || end != text.data() + digits || text[0] == '-') return {};
  text.remove_prefix(digits);
  return value;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text[0] != c) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<Time> take_fraction(std::string_view& text) {
  Time micros = 0, unit = kSecond / 10;
  size_t digits = 0;
  for (; !text.empty() && text[0] >= '0' && text[0] <= '9'; text.remove_prefix(1), ++digits, unit /= 10)
    micros += unit * (text[0] - '0');
  if (digits == 0 || digits > 9) return {};
  return micros;
}

std::optional<Time> take_date(std::string_view& text) {
  const auto year = take_number(text, 4);
  if (!year || !take(text, '-')) return {};
  const auto month = take_number(text, 2);
  if (!month || !take(text, '-')) return {};
  const auto day = take_number(text, 2);
  if (!day) return {};
  const std::chrono::year_month_day date(std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day)));
  if (!date.ok()) return {};
  return std::chrono::sys_days(date).time_since_epoch().count() * kDay;
}

std::optional<Time> take_clock(std::string_view& text) {
  const auto hour = take_number(text, 2);
  if (!hour || *hour > 23 || !take(text, ':')) return {};
  const auto minute = take_number(text, 2);
  if (!minute || *minute > 59) return {};
  Time clock = (*hour * 3600 + *minute * 60) * kSecond;
  if (!take(text, ':')) return clock;
  const auto second = take_number(text, 2);
  if (!second || *second > 60) return {};  // 60: a leap second
  clock += *second * kSecond;
  if (!take(text, '.')) return clock;
  const auto fraction = take_fraction(text);
  return fraction ? std::optional(clock + *fraction) : std::nullopt;
}

std::optional<Time> take_offset(std::string_view& text) {
  if (text.empty() || take(text, 'Z') || take(text, 'z')) return 0;
  const bool east = text[0] == '+' || text[0] == ' ';  // a "+" in a query string that nobody escaped arrives as a space
  if (!east && text[0] != '-') return {};
  text.remove_prefix(1);
  const auto hours = take_number(text, 2);
  take(text, ':');
  const auto minutes = take_number(text, 2);
  if (!hours || !minutes || *hours > 23 || *minutes > 59) return {};
  return (*hours * 3600 + *minutes * 60) * kSecond * (east ? 1 : -1);
}

}  // namespace

Time now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string rfc3339(Time time) {
  const Time days = time >= 0 ? time / kDay : (time - kDay + 1) / kDay;
  const Time rest = time - days * kDay;
  const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(days))};
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), rest / (3600 * kSecond),
                     rest / (60 * kSecond) % 60, rest / kSecond % 60, rest % kSecond);
}

std::optional<Time> parse_rfc3339(std::string_view text) {
  const auto date = take_date(text);
  if (!date || text.empty()) return date;
  if (!take(text, 'T') && !take(text, 't') && !take(text, ' ')) return {};
  const auto clock = take_clock(text);
  if (!clock) return {};
  const auto offset = take_offset(text);
  if (!offset || !text.empty()) return {};
  return *date + *clock - *offset;
}

std::string clean_text(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const base::Utf8Char c = base::decode_utf8(text, i);
    if (!c.valid)
      base::append_utf8(out, 0xFFFD);
    else if (c.code != 0)
      out.append(text.substr(i, c.length));
    i += c.length;
  }
  return out;
}

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace calotype::store
