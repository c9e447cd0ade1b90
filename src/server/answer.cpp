#include "server/answer.h"

#include <chrono>

namespace calotype::server {

namespace {

/// Problem 429 when the token has used up its allowance; else the headers that say what is left.
std::vector<std::pair<std::string, std::string>> pay(Site& site, const Route& route, const Request& request) {
  // Without tokens everybody is at home.
  const bool limited = !request.token_id.empty();
  RateLimit& limit = route.cost == Cost::create ? site.creations : site.requests;
  static const int64_t kPlenty = 1'000'000;
  const Allowance now = limited
                            ? limit.take(request.token_id)
                            : Allowance{.granted = true, .remaining = kPlenty, .reset_seconds = 0, .retry_seconds = 0};
  std::vector<std::pair<std::string, std::string>> headers = {{"ratelimit-remaining", std::to_string(now.remaining)},
                                                              {"ratelimit-reset", std::to_string(now.reset_seconds)}};
  if (now.granted) return headers;
  Problem problem(429, "Too many requests",
                  fmt::format("Request was throttled. Your rate limit resets in ~{}s.", now.retry_seconds));
  problem.headers = headers;
  problem.headers.emplace_back("Retry-After", std::to_string(now.retry_seconds));
  throw problem;
}

Response handled(Site& site, const Route& route, Request& request) {
  if (route.access == Access::token) request.token_id = site.auth.check(request);
  const auto headers = pay(site, route, request);
  Response response = route.handler(request);
  for (const auto& [name, value] : headers) response.with(name, value);
  return response;
}

}  // namespace

Response answer(Site& site, const Router& router, Request& request) {
  const auto begin = std::chrono::steady_clock::now();
  Dialect dialect = Dialect::replicate;
  std::string pattern = "none";
  Response response;
  try {
    check_origin(site.options.origins, request);
    if (request.method == "OPTIONS") {
      response = empty_response(204);
    } else {
      Match match = router.find(request.method, request.path);
      pattern = match.route->pattern;
      dialect = match.route->dialect;
      request.parameters = std::move(match.parameters);
      response = handled(site, *match.route, request);
    }
  } catch (const std::exception& error) {
    response = problem_response(error, dialect);
    if (response.status >= 500) site.note(fmt::format("{} {}: {}", request.method, pattern, error.what()));
  }
  add_cors_headers(site.options.origins, request, response);
  site.metrics.count(request.method, pattern, response.status,
                     std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  return response;
}

}  // namespace calotype::server
