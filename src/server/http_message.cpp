#include "server/http_message.h"

#include <fmt/format.h>

#include "base/error.h"
#include "files/bounded_json.h"
#include "server/problem.h"

namespace calotype::server {

std::string_view Request::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (key == name) return value;
  return {};
}

std::optional<std::string> Request::query_value(std::string_view name) const {
  for (const auto& [key, value] : query)
    if (key == name) return value;
  return std::nullopt;
}

std::string Request::read_body(uint64_t limit) {
  const auto too_large = [&] {
    return Problem(
        413, "Request too large",
        fmt::format("The body must be smaller than {} bytes; upload large files with POST /v1/files.", limit));
  };
  if (content_length && *content_length > limit) throw too_large();
  std::string text;
  if (!body) return text;
  char block[8192];
  while (const std::streamsize count = body->rdbuf()->sgetn(block, sizeof block)) {
    text.append(block, static_cast<size_t>(count));
    if (text.size() > limit) throw too_large();
  }
  return text;
}

Json Request::read_json_object() {
  const std::string text = read_body();
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) return Json::object();
  Json value;
  try {
    value = files::parse_bounded_json(text, "request body", {.depth = 64, .values = 100'000});
  } catch (const base::Error& error) {
    throw Problem(400, "Invalid JSON", error.what());
  }
  if (!value.is_object())
    throw Problem(400, "Invalid JSON",
                  fmt::format("The request body is a JSON {}, expected an object.", value.type_name()));
  return value;
}

Response& Response::with(std::string name, std::string value) {
  headers.emplace_back(std::move(name), std::move(value));
  return *this;
}

Response json_response(const Json& body, int status) {
  return {.status = status,
          .headers = {},
          .content_type = "application/json",
          .body = dump(body),
          .write = {},
          .length = {}};
}

Response text_response(std::string body, std::string content_type, int status) {
  return {.status = status,
          .headers = {},
          .content_type = std::move(content_type),
          .body = std::move(body),
          .write = {},
          .length = {}};
}

Response empty_response(int status) {
  return {.status = status, .headers = {}, .content_type = "", .body = "", .write = {}, .length = {}};
}

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::optional<std::string> percent_decoded(std::string_view text, bool plus_is_blank) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_blank) {
      out += ' ';
    } else if (text[i] != '%') {
      out += text[i];
    } else {
      if (i + 2 >= text.size() || digit(text[i + 1]) < 0 || digit(text[i + 2]) < 0) return std::nullopt;
      out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    }
  }
  return out;
}

}  // namespace calotype::server
