// Which handler answers which path: a table of methods and patterns.
//
//   Router router;
//   router.add({"GET", "/predictions/{id}", get_prediction}, kApiMounts);
//   std::optional<Match> match = router.find("GET", "/v1/predictions/abc");
//
// Built once, then read by any number of threads.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http_message.h"
#include "server/problem.h"

namespace calotype::server {

using Handler = std::function<Response(Request&)>;

enum class Access {
  token,  ///< where tokens exist, one is needed
  open    ///< anybody: pages, and URLs that nobody can guess
};

/// What a request costs of its token's allowance.
enum class Cost { read, create };

struct Route {
  std::string method;   ///< "GET" answers HEAD as well
  std::string pattern;  ///< "/models/{owner}/{name}", "/files/stream-{token}"; "/{rest*}" takes what is left
  Handler handler;
  Access access = Access::token;
  Cost cost = Cost::read;
  Dialect dialect = Dialect::replicate;
};

/// Where the API lives. replicate-python asks for /v1/…, given a base URL that ends in /v1 for /v1/v1/…; replicate-js
/// and old links with an absolute path land on either (replicate-api.md §0.3).
inline const std::vector<std::string> kApiMounts = {"/v1", "", "/v1/v1"};

struct Match {
  const Route* route = nullptr;
  std::map<std::string, std::string, std::less<>> parameters;
};

class Router {
 public:
  /// Routes are tried in the order in which they were added.
  void add(Route route, const std::vector<std::string>& mounts = {""});
  void add(std::vector<Route> routes, const std::vector<std::string>& mounts = {""});
  /// Problem 404 when nothing lives at `path`, 405 with Allow when another method does.
  Match find(std::string_view method, std::string_view path) const;

 private:
  struct Entry {
    std::vector<std::string> segments;
    Route route;
  };
  std::vector<Entry> entries_;
};

}  // namespace calotype::server
