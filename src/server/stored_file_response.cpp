#include "server/stored_file_response.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "hub/http_client.h"

namespace calotype::server {

namespace {

struct Span {
  uint64_t begin = 0, end = 0;  // bytes [begin, end)
};

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

/// RFC 9110 §14.2. Several ranges and other units are ignored, as the RFC permits: the whole file is sent.
/// `satisfiable` becomes false for a range beyond the end.
std::optional<Span> range_of(std::string_view header, uint64_t size, bool& satisfiable) {
  if (!header.starts_with("bytes=") || header.find(',') != std::string_view::npos) return std::nullopt;
  header.remove_prefix(6);
  const size_t dash = header.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto first = number(header.substr(0, dash)), last = number(header.substr(dash + 1));
  const bool open_end = dash + 1 == header.size();
  if ((!first && dash > 0) || (!last && !open_end) || (!first && !last)) return std::nullopt;
  Span span;
  if (!first) {  // the last N bytes
    span = {size - std::min(*last, size), size};
  } else {
    if (last && *last < *first) return std::nullopt;
    span = {*first, last ? std::min(*last, size - 1) + 1 : size};
  }
  satisfiable = span.begin < span.end && span.begin < size;
  return span;
}

void copy(std::istream& in, std::ostream& out, uint64_t count) {
  std::vector<char> block(64 << 10);
  while (count > 0 && out.good()) {
    in.read(block.data(), static_cast<std::streamsize>(std::min<uint64_t>(count, block.size())));
    const std::streamsize got = in.gcount();
    if (got <= 0) {
      out.setstate(std::ios::badbit);  // the connection breaks, so that nobody takes the part for the whole
      return;
    }
    out.write(block.data(), got);
    count -= static_cast<uint64_t>(got);
  }
}

}  // namespace

Response stored_file_response(Site& site, const Request& request, const store::StoredFile& file) {
  Response response;
  response.content_type = file.content_type;
  const std::string tag = "\"" + file.md5 + "\"";
  response.with("Accept-Ranges", "bytes")
      .with("ETag", tag)
      .with("Cache-Control", "private, max-age=31536000, immutable");
  // Uploads may claim to be pages; as such they must not act in this site's name.
  response.with("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'");
  response.with("Content-Disposition", fmt::format("inline; filename*=UTF-8''{}", hub::url_encoded(file.name)));
  if (request.header("if-none-match") == tag) {
    response.status = 304;
    response.content_type.clear();
    return response;
  }
  Span span{0, file.size};
  bool satisfiable = true;
  const std::string_view condition = request.header("if-range");
  if (condition.empty() || condition == tag) {
    if (const auto range = range_of(request.header("range"), file.size, satisfiable)) {
      if (!satisfiable)
        return text_response("", "text/plain", 416).with("Content-Range", fmt::format("bytes */{}", file.size));
      span = *range;
      response.status = 206;
      response.with("Content-Range", fmt::format("bytes {}-{}/{}", span.begin, span.end - 1, file.size));
    }
  }
  response.length = span.end - span.begin;
  if (request.method == "HEAD") {
    response.write = [](std::ostream&) {};
    return response;
  }
  std::shared_ptr<std::istream> in = site.store.files->open(file.id, span.begin);
  response.write = [in, count = *response.length](std::ostream& out) { copy(*in, out, count); };
  return response;
}

}  // namespace calotype::server
