// What all handlers share: settings, stored things, the rules of access, numbers for /metrics.
//
//   Site site(options, store::Store::open({.data = "data"}));
//   const Router router = api_router(site);
//   HttpServer server(http_options, [&](Request& request) { return answer(site, router, request); });
//
// Thread-safe as its parts are.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "server/auth.h"
#include "server/metrics.h"
#include "server/origin_rules.h"
#include "server/rate_limit.h"
#include "store/store.h"

namespace calotype::server {

struct SiteOptions {
  std::string base_url;  ///< own address where no request tells it, for example in webhooks
  AuthOptions auth = {};
  OriginRules origins = {};
  int64_t creations_per_minute = 6000;              ///< jobs and files per token, 0 = no limit
  int64_t requests_per_minute = 60'000;             ///< all others per token, 0 = no limit
  uint64_t upload_bytes = uint64_t{4} << 30;        ///< largest file that may be uploaded
  std::chrono::seconds upload_lifetime{24 * 3600};  ///< uploads nobody trains on go away after this time, 0 = never
  std::chrono::seconds longest_wait{60};            ///< of "Prefer: wait"
  bool private_targets = false;                     ///< webhooks may go to addresses of the local network
  std::chrono::seconds prediction_retention{0};     ///< outputs and inputs of older predictions are deleted, 0 = never
  std::string weights_note;                         ///< a sentence about the weights behind the names, "" = none
};

struct Site {
  Site(SiteOptions given, store::Store opened)
      : options(std::move(given)),
        store(std::move(opened)),
        auth(store.tokens, options.auth),
        creations(options.creations_per_minute),
        requests(options.requests_per_minute) {}

  SiteOptions options;
  store::Store store;
  Auth auth;
  RateLimit creations, requests;
  Metrics metrics;
  std::function<void(std::string_view)> note = [](std::string_view) {};  ///< for the operator; called by any thread
  std::atomic<bool> stopping{false};                                     ///< waiting handlers return soon
};

}  // namespace calotype::server
