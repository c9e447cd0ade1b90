// A request as handlers see it, and the answer that they return; sockets, TLS and chunks stay in http_server.
//
//   Response get_account(Request& request) { return json_response({{"type", "user"}}); }
//
// Plain values, one thread at a time. The body of a request can be read once.
#pragma once

#include <cstdint>
#include <functional>
#include <istream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace calotype::server {

using Json = nlohmann::json;

/// Bodies of JSON requests: ten pictures as data URIs fit; anything larger belongs to POST /v1/files.
constexpr uint64_t kJsonBodyLimit = 64 << 20;

struct Request {
  std::string method;                                        ///< as sent: "GET", "QUERY", …
  std::string path;                                          ///< as sent, before "?", not decoded
  std::vector<std::pair<std::string, std::string>> query;    ///< decoded
  std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case
  std::string peer;                                          ///< address of the client without port
  bool peer_is_loopback = false;
  std::string base_url;  ///< "https://host:5000", how the client reaches this server
  std::map<std::string, std::string, std::less<>> parameters;  ///< of the route's pattern, decoded
  std::string token_id;                                        ///< who asks; "" without tokens
  std::istream* body = nullptr;                                ///< throws Problem when it ends early or is too large
  std::optional<uint64_t> content_length;

  /// "" when absent.
  std::string_view header(std::string_view name) const;
  std::optional<std::string> query_value(std::string_view name) const;
  const std::string& parameter(std::string_view name) const { return parameters.find(name)->second; }
  /// The whole body. Problem 413 beyond `limit` bytes.
  std::string read_body(uint64_t limit = kJsonBodyLimit);
  /// The body as a JSON object, {} for an empty one. Problem 400 for anything else.
  Json read_json_object();
};

struct Response {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string content_type = "application/json";
  std::string body;
  std::function<void(std::ostream&)> write;  ///< instead of `body`: called after the headers were sent
  std::optional<uint64_t> length;            ///< bytes that `write` writes; sent in chunks when unknown

  Response& with(std::string name, std::string value);
};

Response json_response(const Json& body, int status = 200);
Response text_response(std::string body, std::string content_type, int status = 200);
Response empty_response(int status = 204);

/// JSON text for the wire; broken UTF-8, which only foreign logs can hold, becomes U+FFFD.
std::string dump(const Json& value);

/// "%20" → " "; nothing when a "%" is not followed by two hexadecimal digits.
std::optional<std::string> percent_decoded(std::string_view text, bool plus_is_blank = false);

}  // namespace calotype::server
