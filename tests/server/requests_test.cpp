// What requests ask for in headers, and what answers carry.
#include <gtest/gtest.h>

#include <sstream>

#include "server/events.h"
#include "server/http_connection.h"
#include "server/problem.h"
#include "server/site.h"
#include "server/stored_file_response.h"
#include "server/submit.h"
#include "support/golden.h"

namespace calotype::server {
namespace {
using namespace std::chrono_literals;

Request with_header(const std::string& name, const std::string& value) {
  Request request;
  request.headers = {{name, value}};
  return request;
}

int status_of(const std::function<void()>& act) {
  try {
    act();
    return 200;
  } catch (const Problem& problem) {
    return problem.status;
  }
}

// The header's grammar is that of Replicate's documentation: wait, or wait=1 to wait=60.
TEST(Requests, PreferWait) {
  EXPECT_FALSE(preferred_wait(Request{}));
  EXPECT_FALSE(preferred_wait(with_header("prefer", "respond-async")));
  EXPECT_EQ(preferred_wait(with_header("prefer", "wait")), 60s);
  EXPECT_EQ(preferred_wait(with_header("prefer", "respond-async, wait=7")), 7s);
  for (const char* wrong : {"wait=0", "wait=61", "wait=", "wait=5s", "wait=-1", "wait=99999999999"})
    EXPECT_EQ(status_of([&] { preferred_wait(with_header("prefer", wrong)); }), 400) << wrong;
}

// replicate-python reads for N + 0.5 s: the answer has to be there before N.
TEST(Requests, HoldingEndsBeforeClientsGiveUp) {
  for (int n = 1; n <= 60; ++n) {
    EXPECT_LT(holding_time(std::chrono::seconds(n)), std::chrono::seconds(n));
    EXPECT_GT(holding_time(std::chrono::seconds(n)), 0ms);
  }
  EXPECT_LE(holding_time(60s), 58500ms);
}

TEST(Requests, CancelAfter) {
  EXPECT_FALSE(cancel_after(Request{}));
  const std::vector<std::pair<std::string, std::chrono::seconds>> good = {
      {"30", 30s}, {"30s", 30s}, {"5m", 300s}, {"1h30m45s", 5445s}, {"5", 5s}};
  for (const auto& [text, seconds] : good) EXPECT_EQ(cancel_after(with_header("cancel-after", text)), seconds) << text;
  for (const char* wrong : {"4s", "0", "-5", "s", "5x", "1.5h", "m5"})
    EXPECT_EQ(status_of([&] { cancel_after(with_header("cancel-after", wrong)); }), 422) << wrong;
  EXPECT_GT(
      cancel_after(with_header("cancel-after", std::string(4000, '9') + "h" + std::string(4000, '9') + "h"))->count(),
      0);
}

TEST(Requests, BaseUrlIsWhatTheClientUses) {
  Request request;
  request.headers = {{"host", "localhost:5000"}};
  EXPECT_EQ(base_url_of(request, "", false, "127.0.0.1:5000"), "http://localhost:5000");
  EXPECT_EQ(base_url_of(request, "", true, "127.0.0.1:5000"), "https://localhost:5000");
  EXPECT_EQ(base_url_of(request, "https://art.example.com", false, ""), "https://art.example.com");
  request.headers.emplace_back("x-forwarded-proto", "https, http");
  request.headers.emplace_back("x-forwarded-host", "art.example.com, inner");
  EXPECT_EQ(base_url_of(request, "", false, ""), "https://art.example.com");
  request.headers = {{"host", "evil\"><script>"}, {"x-forwarded-host", "a/b"}, {"x-forwarded-proto", "javascript"}};
  EXPECT_EQ(base_url_of(request, "", false, "127.0.0.1:5000"), "http://127.0.0.1:5000");
}

TEST(Requests, EachApiGetsItsErrors) {
  const Problem wrong = invalid_field("input.num_outputs", "Must be less than or equal to 4", "number_lte");
  const Json replicate = Json::parse(problem_response(wrong, Dialect::replicate).body);
  EXPECT_EQ(replicate["status"], 422);
  EXPECT_EQ(replicate["invalid_fields"][0]["field"], "input.num_outputs");
  const Json openai = Json::parse(problem_response(wrong, Dialect::openai).body);
  for (const char* key : {"message", "type", "param", "code"}) EXPECT_TRUE(openai["error"].contains(key)) << key;
  EXPECT_EQ(problem_response(wrong, Dialect::openai).status, 400);  // platform.openai.com, "Error codes"
  const Json bfl = Json::parse(problem_response(wrong, Dialect::bfl).body);
  EXPECT_EQ(bfl["detail"][0]["loc"], Json::array({"body", "input", "num_outputs"}));
  // A mistake of ours says nothing about our insides.
  EXPECT_EQ(problem_response(std::runtime_error("SELECT secret"), Dialect::replicate).body.find("SELECT"),
            std::string::npos);
  EXPECT_EQ(problem_response(base::Error(base::ErrorKind::disk_full, "x"), Dialect::replicate).status, 507);
}

// Clients of OpenAI and Black Forest Labs give width and height; some models take them with aspect_ratio custom alone.
TEST(Requests, GivenSizesCountWithEveryModel) {
  const auto ratio = [](const worker::ServedModel& model, Json input) {
    use_given_size(model, input);
    return input.value("aspect_ratio", "");
  };
  const Json size = {{"width", 512}, {"height", 256}};
  EXPECT_EQ(ratio(worker::fine_tuned_model(), size), "custom");
  EXPECT_EQ(ratio(*worker::find_model("black-forest-labs/flux-1.1-pro"), size), "custom");
  EXPECT_EQ(ratio(*worker::find_model("black-forest-labs/flux-dev"), size), "");
  EXPECT_EQ(ratio(*worker::find_model("replicate/canary"), size), "");
  EXPECT_EQ(ratio(worker::fine_tuned_model(), Json::object()), "");
  EXPECT_EQ(ratio(worker::fine_tuned_model(), {{"width", 512}, {"aspect_ratio", "3:2"}}), "3:2");
}

// https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end with CR, LF or both; one blank after the
// colon is dropped.
TEST(Requests, EventFramesCarryEveryKindOfText) {
  EXPECT_EQ(event_frame("logs", "1:0", "a\nb\r\nc\rd"), "event: logs\nid: 1:0\ndata: a\ndata: b\ndata: c\ndata: d\n\n");
  EXPECT_EQ(event_frame("output", "2:0", " x"), "event: output\nid: 2:0\ndata:  x\n\n");
  EXPECT_EQ(event_frame("done", "3:0", ""), "event: done\nid: 3:0\ndata: \n\n");
}

TEST(Requests, FilesInParts) {
  const test::TemporaryFolder folder;
  Site site({}, store::Store::open({.data = folder / "data"}));
  const auto file = site.store.files->put({.name = "a b.txt", .content_type = "text/plain"}, "0123456789");
  const auto get = [&](const std::string& range) {
    Request request = with_header("range", range);
    request.method = "GET";
    Response response = stored_file_response(site, request, file);
    std::ostringstream out;
    if (response.write) response.write(out);
    return std::pair(response.status, out.str());
  };
  EXPECT_EQ(get("bytes=2-4"), std::pair(206, std::string("234")));
  EXPECT_EQ(get("bytes=7-"), std::pair(206, std::string("789")));
  EXPECT_EQ(get("bytes=-3"), std::pair(206, std::string("789")));
  EXPECT_EQ(get("bytes=-99"), std::pair(206, std::string("0123456789")));
  EXPECT_EQ(get("bytes=8-99"), std::pair(206, std::string("89")));
  EXPECT_EQ(get("bytes=10-"), std::pair(416, std::string()));
  for (const char* ignored : {"", "bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5", "bytes=-"})
    EXPECT_EQ(get(ignored), std::pair(200, std::string("0123456789"))) << ignored;
}

}  // namespace
}  // namespace calotype::server
