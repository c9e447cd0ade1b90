// What rows are made of: JSON, and times.
//
//   Time created = now();                 // 1767607200123456
//   std::string text = rfc3339(created);  // "2026-01-05T10:00:00.123456Z"
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace calotype::store {

using Json = nlohmann::json;

/// Microseconds since 1970-01-01T00:00:00Z.
using Time = int64_t;

constexpr Time kSecond = 1'000'000;

Time now();

/// RFC 3339 in UTC with six fraction digits; the years 0 to 9999.
std::string rfc3339(Time time);

/// Reads RFC 3339 with any offset and 0 to 9 fraction digits ("2026-01-05T10:00:00+01:00"; a space instead of T and a
/// missing offset, meaning UTC, are accepted, as is a date alone); nothing when it is none.
std::optional<Time> parse_rfc3339(std::string_view text);

/// Text that every database stores: broken UTF-8 becomes U+FFFD, NUL is dropped (PostgreSQL knows neither).
std::string clean_text(std::string_view text);

/// Compact JSON; strings with broken UTF-8 are mended instead of refused.
std::string dump(const Json& value);

}  // namespace calotype::store
