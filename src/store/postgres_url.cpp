#include "store/postgres_url.h"

#include <Poco/Exception.h>
#include <Poco/URI.h>

#include <algorithm>

#include "base/error.h"

namespace calotype::store {
using base::ErrorKind;
namespace {

void add(std::string& words, const std::string& key, const std::string& value) {
  if (value.empty()) return;
  const auto control = [](char c) { return static_cast<unsigned char>(c) <= ' '; };
  base::check(std::find_if(value.begin(), value.end(), control) == value.end(), ErrorKind::bad_input,
              "database: {} in the URL has a space or control character, which cannot be passed on", key);
  if (!words.empty()) words += ' ';
  words += key + '=';
  for (const char c : value) {
    if (c == '\'' || c == '\\') words += '\\';
    words += c;
  }
}

std::string decoded(const std::string& text) {
  std::string plain;
  Poco::URI::decode(text, plain);
  return plain;
}

}  // namespace

std::string connection_words(const std::string& url) try {
  const Poco::URI uri(url);
  const std::string user_info = uri.getUserInfo();  // still encoded: a password may contain ":"
  const size_t colon = user_info.find(':');
  std::string words;
  add(words, "host", uri.getHost());
  if (uri.getPort() != 0) add(words, "port", std::to_string(uri.getPort()));
  add(words, "user", decoded(user_info.substr(0, colon)));
  if (colon != std::string::npos) add(words, "password", decoded(user_info.substr(colon + 1)));
  add(words, "dbname", uri.getPath().empty() ? "" : uri.getPath().substr(1));
  for (const auto& [key, value] : uri.getQueryParameters()) add(words, key, value);
  return words;
} catch (const Poco::Exception&) {
  base::fail(ErrorKind::bad_input,
             "database: the URL cannot be read, expected postgresql://USER:PASSWORD@HOST:PORT/NAME");
}

}  // namespace calotype::store
