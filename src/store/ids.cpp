#include "store/ids.h"

#include <algorithm>

#include "base/error.h"
#include "hub/signature.h"

namespace calotype::store {
namespace {

constexpr std::string_view kLower = "0123456789abcdefghijklmnopqrstuvwxyz";
constexpr std::string_view kAlphanumeric = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

// Bytes at or above the largest multiple of the alphabet's size are thrown away: a plain modulo prefers the first
// letters.
std::string random_text(std::string_view alphabet, size_t length) {
  const size_t limit = 256 / alphabet.size() * alphabet.size();
  std::string text;
  while (text.size() < length)
    for (const char c : hub::random_bytes(2 * length))
      if (const size_t byte = static_cast<unsigned char>(c); byte < limit && text.size() < length)
        text += alphabet[byte % alphabet.size()];
  return text;
}

bool is_letter_or_digit(char c) { return kLower.find(c) != std::string_view::npos; }

}  // namespace

std::string new_id() { return random_text(kLower, 26); }

void check_name(std::string_view field, std::string_view name) {
  const auto allowed = [](char c) { return is_letter_or_digit(c) || c == '.' || c == '_' || c == '-'; };
  base::check(
      !name.empty() && name.size() <= 64 && std::ranges::all_of(name, allowed) && is_letter_or_digit(name.front()) &&
          is_letter_or_digit(name.back()),
      base::ErrorKind::bad_input,
      "{}: \"{}\" is no name, expected 1 to 64 lower-case letters, digits, \".\", \"_\" or \"-\" that begin and end "
      "with a letter or digit",
      field, base::printable(name));
}

void check_id(std::string_view field, std::string_view id) {
  const auto allowed = [](char c) { return kAlphanumeric.find(c) != std::string_view::npos || c == '_' || c == '-'; };
  base::check(!id.empty() && id.size() <= 64 && std::ranges::all_of(id, allowed), base::ErrorKind::bad_input,
              "{}: \"{}\" is no id, expected 1 to 64 letters, digits, \"_\" or \"-\"", field, base::printable(id));
}

}  // namespace calotype::store
