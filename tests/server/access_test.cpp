// Who is let in: tokens, allowances, origins.
#include <gtest/gtest.h>

#include <algorithm>

#include "server/auth.h"
#include "server/origin_rules.h"
#include "server/problem.h"
#include "server/rate_limit.h"
#include "store/store.h"
#include "support/golden.h"

namespace calotype::server {
namespace {
using namespace std::chrono_literals;

Request with_headers(std::vector<std::pair<std::string, std::string>> headers) {
  Request request;
  request.headers = std::move(headers);
  request.base_url = "http://127.0.0.1:5000";
  return request;
}

int refusal(const std::function<void()>& check) {
  try {
    check();
    return 200;
  } catch (const Problem& problem) {
    return problem.status;
  }
}

TEST(Auth, NeedsNoTokenUntilThereIsOne) {
  const test::TemporaryFolder folder;
  const store::Store s = store::Store::open({.data = folder / "data"});
  const Auth before(s.tokens, {});
  EXPECT_EQ(before.check(with_headers({})), "");
  EXPECT_EQ(before.check(with_headers({{"authorization", "Bearer whatever"}})), "");
  const auto made = s.tokens->create("laptop");
  const Auth auth(s.tokens, {});
  const auto status = [&](const std::string& value) {
    return refusal([&] { auth.check(with_headers({{"authorization", value}})); });
  };
  EXPECT_EQ(status("Bearer " + made.plain), 200);
  EXPECT_EQ(status("Token " + made.plain), 200);
  EXPECT_EQ(status("bearer  " + made.plain), 200);
  EXPECT_EQ(status("Bearer " + made.plain + "x"), 401);
  EXPECT_EQ(status("Basic " + made.plain), 401);
  EXPECT_EQ(status(""), 401);
  EXPECT_EQ(auth.check(with_headers({{"x-key", made.plain}})), made.token.id);
}

TEST(Auth, FixedTokensAndServersReachableFromOutside) {
  const test::TemporaryFolder folder;
  const store::Store s = store::Store::open({.data = folder / "data"});
  const Auth fixed(s.tokens, {.fixed_tokens = {"s3cret-s3cret"}});
  EXPECT_EQ(refusal([&] { fixed.check(with_headers({{"authorization", "Bearer s3cret-s3cret"}})); }), 200);
  EXPECT_EQ(refusal([&] { fixed.check(with_headers({})); }), 401);
  const Auth always(s.tokens, {.fixed_tokens = {}, .always = true});
  EXPECT_EQ(refusal([&] { always.check(with_headers({})); }), 401);
}

TEST(RateLimit, RefillsEvenly) {
  RateLimit limit(60);
  const auto start = std::chrono::steady_clock::time_point(1h);
  for (int i = 0; i < 60; ++i) EXPECT_TRUE(limit.take("a", start).granted);
  const Allowance refused = limit.take("a", start);
  EXPECT_FALSE(refused.granted);
  EXPECT_EQ(refused.remaining, 0);
  EXPECT_EQ(refused.retry_seconds, 1);
  EXPECT_EQ(refused.reset_seconds, 60);
  EXPECT_TRUE(limit.take("b", start).granted);
  EXPECT_TRUE(limit.take("a", start + 1s).granted);
  EXPECT_FALSE(limit.take("a", start + 1s).granted);
  EXPECT_EQ(limit.take("a", start + 61s).remaining, 59);
}

TEST(OriginRules, HostMustMeanThisMachine) {
  const OriginRules rules{.loopback_only = true, .allowed_hosts = {"art.example.com"}};
  const auto status = [&](const std::string& host) {
    return refusal([&] { check_origin(rules, with_headers({{"host", host}})); });
  };
  for (const char* host : {"localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000",
                           "art.example.com", "ART.example.com:443", "x.localhost:80"})
    EXPECT_EQ(status(host), 200) << host;
  for (const char* host :
       {"evil.example", "127.0.0.1.evil.example", "localhost.evil.example:5000", "10.0.0.1", "0.0.0.0:5000", "[::2]"})
    EXPECT_EQ(status(host), 403) << host;
}

TEST(OriginRules, ForeignPagesAreRefused) {
  const OriginRules rules{.loopback_only = true, .allowed_hosts = {}, .allowed_origins = {"https://friend.example"}};
  const auto status = [&](const std::string& origin) {
    return refusal([&] { check_origin(rules, with_headers({{"host", "127.0.0.1:5000"}, {"origin", origin}})); });
  };
  EXPECT_EQ(status("http://127.0.0.1:5000"), 200);
  EXPECT_EQ(status("https://friend.example"), 200);
  for (const char* origin : {"null", "http://evil.example", "http://127.0.0.1:5001", "http://localhost:5000",
                             "https://friend.example.evil", "file://", "http://127.0.0.1:5000.evil.example"})
    EXPECT_EQ(status(origin), 403) << origin;
  Response response;
  add_cors_headers(rules, with_headers({{"origin", "http://evil.example"}}), response);
  EXPECT_TRUE(response.headers.empty());
  add_cors_headers(rules, with_headers({{"origin", "https://friend.example"}}), response);
  EXPECT_FALSE(response.headers.empty());
  // As openai-node asks before it sends: browsers hold back requests with headers that the answer does not list.
  const std::pair<std::string, std::string> listed{"Access-Control-Allow-Headers",
                                                   "authorization,content-type,x-stainless-os"};
  const Request preflight =
      with_headers({{"origin", "https://friend.example"}, {"access-control-request-headers", listed.second}});
  Response allowance;
  add_cors_headers(rules, preflight, allowance);
  EXPECT_EQ(std::ranges::count(allowance.headers, listed), 1);
}

}  // namespace
}  // namespace calotype::server
