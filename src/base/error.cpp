#include "base/error.h"

#include "base/utf8.h"

namespace calotype::base {
namespace {

/// Control characters of Latin-1, and those that break lines or turn the direction of writing.
bool disturbs_a_line(char32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x2028 && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069);
}

}  // namespace

std::string_view name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::bad_input: return "bad_input";
    case ErrorKind::not_found: return "not_found";
    case ErrorKind::corrupt_file: return "corrupt_file";
    case ErrorKind::unsupported: return "unsupported";
    case ErrorKind::out_of_memory: return "out_of_memory";
    case ErrorKind::disk_full: return "disk_full";
    case ErrorKind::conflict: return "conflict";
    case ErrorKind::canceled: return "canceled";
    case ErrorKind::internal: return "internal";
  }
  return "internal";
}

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::internal: return 1;
    case ErrorKind::canceled: return 130;
    default: return 2;
  }
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  size_t i = 0;
  while (i < text.size() && out.size() < limit) {
    const Utf8Char c = decode_utf8(text, i);
    if (c.valid && !disturbs_a_line(c.code))
      out.append(text.substr(i, c.length));
    else
      for (size_t k = 0; k < c.length; ++k) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i + k]));
    i += c.length;
  }
  if (i < text.size()) out += "…";
  return out;
}

}  // namespace calotype::base
