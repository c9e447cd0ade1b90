#include "hub/url.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "hub/http_client.h"

namespace calotype::hub {

using base::ErrorKind;

namespace {

constexpr size_t kMaxUrlBytes = 8192;

using Handle = std::unique_ptr<CURLU, decltype(&curl_url_cleanup)>;

std::string part(CURLU* handle, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(handle, which, &text, flags) != CURLUE_OK) return {};
  std::string copy(text);
  curl_free(text);
  return copy;
}

void set(CURLU* handle, CURLUPart which, const std::string& value, const std::string& shown) {
  const CURLUcode code = curl_url_set(handle, which, value.empty() ? nullptr : value.c_str(), CURLU_NON_SUPPORT_SCHEME);
  if (code == CURLUE_OUT_OF_MEMORY) throw std::bad_alloc();
  base::check(code == CURLUE_OK, ErrorKind::bad_input,
              "{} is no usable URL ({}), expected http:// or https:// and a host", shown_url(shown),
              curl_url_strerror(code));
}

void check_characters(const std::string& text) {
  base::check(text.size() <= kMaxUrlBytes, ErrorKind::bad_input, "a URL has {} bytes, expected at most {}", text.size(),
              kMaxUrlBytes);
  const bool plain = std::none_of(text.begin(), text.end(), [](unsigned char c) { return c <= 0x20 || c == 0x7F; });
  base::check(plain, ErrorKind::bad_input, "{} holds blanks or control characters, which a URL must not",
              base::printable(text.substr(0, text.find('?'))));
}

Url taken_apart(CURLU* handle, const std::string& shown) {
  Url url;
  url.scheme = part(handle, CURLUPART_SCHEME);
  base::check(url.scheme == "http" || url.scheme == "https", ErrorKind::bad_input,
              "{} is no usable URL, expected http:// or https:// and a host", shown_url(shown));
  url.host = part(handle, CURLUPART_HOST, CURLU_PUNYCODE);
  const bool ascii =
      std::all_of(url.host.begin(), url.host.end(), [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  base::check(!url.host.empty() && ascii && part(handle, CURLUPART_ZONEID).empty(), ErrorKind::bad_input,
              "{}: no usable host in this URL", shown_url(shown));
  set(handle, CURLUPART_HOST, url.host, shown);
  set(handle, CURLUPART_FRAGMENT, "", shown);
  url.host = part(handle, CURLUPART_HOST);
  if (url.host.front() == '[') url.host = url.host.substr(1, url.host.size() - 2);
  std::transform(url.host.begin(), url.host.end(), url.host.begin(), [](unsigned char c) { return std::tolower(c); });
  url.port = std::atoi(part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT).c_str());
  base::check(url.port >= 1 && url.port <= 65535, ErrorKind::bad_input, "{}: no usable port in this URL",
              shown_url(shown));
  url.path = part(handle, CURLUPART_PATH);
  url.query = part(handle, CURLUPART_QUERY);
  url.text = part(handle, CURLUPART_URL);
  return url;
}

Handle new_handle() {
  Handle handle(curl_url(), curl_url_cleanup);
  if (!handle) throw std::bad_alloc();
  return handle;
}

}  // namespace

Url Url::parse(const std::string& text) {
  check_characters(text);
  const Handle handle = new_handle();
  set(handle.get(), CURLUPART_URL, text, text);
  return taken_apart(handle.get(), text);
}

Url Url::resolve(const std::string& reference) const {
  check_characters(reference);
  const Handle handle = new_handle();
  set(handle.get(), CURLUPART_URL, text, text);
  set(handle.get(), CURLUPART_URL, reference, reference);
  return taken_apart(handle.get(), reference);
}

std::string Url::authority() const {
  const bool v6 = host.find(':') != std::string::npos;
  const int usual = scheme == "https" ? 443 : 80;
  return (v6 ? "[" + host + "]" : host) + (port == usual ? "" : ":" + std::to_string(port));
}

// Works on text that is no URL as well: it is what error messages about bad URLs show.
std::string shown_url(const std::string& url) {
  std::string text = url.substr(0, url.find_first_of("?#"));
  const size_t scheme = text.find("://");
  const size_t begin = scheme == std::string::npos ? 0 : scheme + 3;
  const size_t at = text.substr(begin, text.find('/', begin) - begin).rfind('@');
  if (at != std::string::npos) text.erase(begin, at + 1);
  return base::printable(text, 200);
}

std::string url_encoded(std::string_view text, std::string_view keep) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const unsigned char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                       std::string_view("-._~").find(static_cast<char>(c)) != std::string_view::npos ||
                       keep.find(static_cast<char>(c)) != std::string_view::npos;
    if (plain) {
      out += static_cast<char>(c);
    } else {
      out += '%';
      out += kDigits[c >> 4];
      out += kDigits[c & 15];
    }
  }
  return out;
}

}  // namespace calotype::hub
