#include "server/router.h"

#include <gtest/gtest.h>

namespace calotype::server {
namespace {

Route route(const std::string& method, const std::string& pattern, int status) {
  return {method, pattern, [status](Request&) { return empty_response(status); }};
}

int called(const Match& match) {
  Request request;
  return match.route->handler(request).status;
}

TEST(Router, FindsPatternsUnderEveryMount) {
  Router router;
  router.add({route("GET", "/files/stream-{token}", 1), route("GET", "/files/{id}", 2), route("QUERY", "/models", 3)},
             kApiMounts);
  for (const std::string mount : {"", "/v1", "/v1/v1"}) {
    EXPECT_EQ(called(router.find("GET", mount + "/files/stream-abc")), 1);
    EXPECT_EQ(router.find("GET", mount + "/files/stream-abc").parameters.at("token"), "abc");
    EXPECT_EQ(called(router.find("GET", mount + "/files/abc")), 2);
    EXPECT_EQ(called(router.find("HEAD", mount + "/files/abc/")), 2);
    EXPECT_EQ(called(router.find("QUERY", mount + "/models")), 3);
  }
}

TEST(Router, DecodesOneSegmentAtATime) {
  Router router;
  router.add(route("GET", "/models/{owner}/{name}", 1));
  EXPECT_EQ(router.find("GET", "/models/a%2Fb/c%20d").parameters.at("owner"), "a/b");
  EXPECT_EQ(router.find("GET", "/models/a%2Fb/c%20d").parameters.at("name"), "c d");
}

TEST(Router, SaysWhatIsMissing) {
  Router router;
  router.add({route("GET", "/models", 1), route("POST", "/models", 1)});
  const auto status = [&](const char* method, const char* path) {
    try {
      router.find(method, path);
      return 0;
    } catch (const Problem& problem) {
      return problem.status;
    }
  };
  EXPECT_EQ(status("GET", "/nothing"), 404);
  EXPECT_EQ(status("DELETE", "/models"), 405);
  EXPECT_EQ(status("GET", "models"), 404);
  EXPECT_EQ(status("GET", ""), 404);
  router.add(route("POST", "/v1/finetune", 1));
  router.add(route("GET", "/{owner}/{name}", 1));  // a page that takes any two words
  EXPECT_EQ(status("GET", "/v1/finetune"), 405);
  EXPECT_EQ(status("POST", "/not/there"), 404);
  EXPECT_EQ(status("GET", "/me/mine"), 0);
  router.add(route("GET", "/models/{owner}", 1));
  EXPECT_EQ(status("POST", "/models/me"), 405);
  for (const char* path : {"/models/%00", "/models/%", "/models/%zz", "/models/%ff"})
    EXPECT_EQ(status("GET", path), 404) << path;
}

}  // namespace
}  // namespace calotype::server
