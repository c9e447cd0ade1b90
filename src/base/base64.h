// Bytes as letters, for JSON, headers and data: URIs.
//
//   page += "<img src=\"data:image/webp;base64," + base64(picture) + "\">";
//
// Pure functions, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace calotype::base {

/// RFC 4648 §4, with padding.
std::string base64(std::string_view bytes);
/// Strict: alphabet of §4, padding as needed, no line breaks; nothing otherwise. A missing padding is accepted.
std::optional<std::string> base64_decoded(std::string_view text);

}  // namespace calotype::base
