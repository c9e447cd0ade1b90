// URLs taken apart by libcurl, so that what is checked is what is asked.
//
//   const Url url = Url::parse("HTTP://0x7f.1:8080/a?b");   // host "127.0.0.1", port 8080
//
// Values; thread-safe.
#pragma once

#include <string>

namespace calotype::hub {

struct Url {
  std::string scheme;  ///< "http" or "https"
  std::string host;    ///< lower case, IDN as punycode, IPv4 in dotted decimal, IPv6 without brackets
  int port = 0;
  std::string path;   ///< begins with "/"
  std::string query;  ///< without "?"
  std::string text;   ///< the whole URL without fragment

  /// Errors: bad_input for anything but an absolute http or https URL of at most 8,192 bytes without control
  /// characters.
  static Url parse(const std::string& text);
  /// A Location header seen from this URL. Errors as parse().
  Url resolve(const std::string& reference) const;

  bool same_origin(const Url& other) const {
    return scheme == other.scheme && host == other.host && port == other.port;
  }
  /// "host" or "[v6]", with the port where it is not the scheme's.
  std::string authority() const;
};

}  // namespace calotype::hub
