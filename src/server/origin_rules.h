// Keeps other people's web pages away: a browser on this machine reaches loopback, whoever wrote the page.
//
//   check_origin(rules, request);      // Problem 403
//
// Host: a name that resolves to this machine only for the attack (DNS rebinding) is refused. Origin: requests that a
// foreign page, a sandboxed frame or a local file makes ("null") are refused, unless that origin was allowed. Programs
// send no Origin. Thread-safe.
#pragma once

#include <string>
#include <vector>

#include "server/http_message.h"

namespace calotype::server {

struct OriginRules {
  bool loopback_only = true;                 ///< the server listens on loopback: Host must mean this machine
  std::vector<std::string> allowed_hosts;    ///< further names, without port
  std::vector<std::string> allowed_origins;  ///< "https://art.example.com": pages that may use the API
};

void check_origin(const OriginRules& rules, const Request& request);

/// Headers that let an allowed foreign page read the answer; nothing for others.
void add_cors_headers(const OriginRules& rules, const Request& request, Response& response);

/// "art.example.com" of "https://art.example.com:8443/x" or of "art.example.com:8443"; lower case, without brackets.
std::string host_of(std::string_view url_or_authority);

}  // namespace calotype::server
