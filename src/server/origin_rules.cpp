#include "server/origin_rules.h"

#include <Poco/String.h>
#include <fmt/format.h>

#include <algorithm>

#include "server/http_server.h"
#include "server/problem.h"

namespace calotype::server {

namespace {

/// "host:port" in lower case with the port that the scheme implies.
std::string authority_of(std::string_view url) {
  const bool tls = url.starts_with("https:");
  const size_t begin = url.find("//");
  std::string text = Poco::toLower(std::string(begin == std::string_view::npos ? url : url.substr(begin + 2)));
  text = text.substr(0, text.find('/'));
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || text.ends_with(']')) text += tls ? ":443" : ":80";
  return text;
}

bool is_allowed_origin(const OriginRules& rules, std::string_view origin) {
  return std::ranges::any_of(rules.allowed_origins,
                             [&](const std::string& allowed) { return allowed == "*" || allowed == origin; });
}

}  // namespace

std::string host_of(std::string_view url) {
  std::string text = authority_of(url);
  text = text.substr(0, text.rfind(':'));
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  return text;
}

void check_origin(const OriginRules& rules, const Request& request) {
  const std::string_view host = request.header("host");
  const std::string name = host_of(host);
  const bool known = host.empty() || is_loopback_host(name) ||
                     std::ranges::find(rules.allowed_hosts, name) != rules.allowed_hosts.end();
  if ((rules.loopback_only || !rules.allowed_hosts.empty()) && !known)
    throw Problem(
        403, "Forbidden",
        fmt::format("This server does not answer for the host {}; start it with --allow-host {} if it should.",
                    base::printable(name), base::printable(name)));

  const std::string_view origin = request.header("origin");
  if (origin.empty() || is_allowed_origin(rules, origin)) return;
  const bool same =
      origin.starts_with("http") &&
      (authority_of(origin) == authority_of(request.base_url) ||
       authority_of(origin) == authority_of(fmt::format("{}//{}", origin.substr(0, origin.find(':') + 1), host)));
  if (!same)
    throw Problem(403, "Forbidden",
                  fmt::format("Pages from {} may not use this server; start it with --allow-origin if they should.",
                              base::printable(origin)));
}

void add_cors_headers(const OriginRules& rules, const Request& request, Response& response) {
  const std::string_view origin = request.header("origin");
  if (origin.empty() || !is_allowed_origin(rules, origin)) return;
  response.with("Access-Control-Allow-Origin", std::string(origin)).with("Vary", "Origin");
  // Clients add headers of their own (openai-node: x-stainless-…); the token protects, not their names.
  const std::string_view asked = request.header("access-control-request-headers");
  response.with("Access-Control-Allow-Headers",
                asked.empty() ? "Authorization, Content-Type, Prefer, Cancel-After, Last-Event-ID, User-Agent, x-key"
                              : std::string(asked));
  response.with("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, QUERY");
  response.with("Access-Control-Expose-Headers",
                "Location, Preference-Applied, Retry-After, ratelimit-remaining, ratelimit-reset");
}

}  // namespace calotype::server
