#include "hub/http_client.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/sha256.h"
#include "hub/hub_server.h"
#include "support/golden.h"

namespace calotype::hub {
namespace {

using base::ErrorKind;
using nlohmann::json;
using test::HubServer;
using test::TemporaryFolder;
using namespace std::chrono_literals;

/// One server for the tests of this file: it starts in a quarter of a second.
class HttpClient : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new HubServer; }
  static void TearDownTestSuite() { delete server_; }
  static std::string url(const std::string& path) { return server_->url(path); }
  static HubServer* server_;
};
HubServer* HttpClient::server_ = nullptr;

ErrorKind kind_of(const HttpRequest& request) {
  try {
    send(request);
  } catch (const base::Error& error) {
    return error.kind();
  }
  ADD_FAILURE() << request.url << ": no error";
  return ErrorKind::internal;
}

std::string header_seen(const json& echo, const std::string& name) {
  for (const auto& entry : echo["headers"])
    if (entry[0] == name) return entry[1];
  return "(none)";
}

TEST_F(HttpClient, SendsWhatItIsAskedTo) {
  for (const char* method : {"GET", "POST", "PUT", "DELETE", "QUERY"}) {
    const bool with_body = std::string(method) != "GET";
    const HttpResponse answer = send({.method = method,
                                      .url = url("/test/echo?a=b%20c"),
                                      .headers = {{"X-Name", "value"}, {"Content-Type", "application/json"}},
                                      .body = with_body ? R"({"é":1})" : ""});
    ASSERT_EQ(answer.status, 200);
    EXPECT_EQ(answer.header("content-type"), "application/json");
    const json echo = json::parse(answer.body);
    EXPECT_EQ(echo["method"], method);
    EXPECT_EQ(echo["path"], "/test/echo?a=b%20c");
    EXPECT_EQ(echo["sha256"], base::sha256_hex(with_body ? R"({"é":1})" : ""));
    EXPECT_EQ(header_seen(echo, "x-name"), "value");
    EXPECT_EQ(header_seen(echo, "content-type"), "application/json");
  }
  EXPECT_EQ(json::parse(send({.method = "POST", .url = url("/test/echo")}).body)["bytes"], 0);
  EXPECT_EQ(send({.method = "HEAD", .url = url("/test/bytes/1000000")}).header("content-length"), "1000000");
}

TEST_F(HttpClient, StatusesAreAnswersNotErrors) {
  EXPECT_EQ(send({.url = url("/test/echo?status=404")}).status, 404);
  EXPECT_EQ(send({.method = "POST", .url = url("/test/echo?status=500"), .body = "x"}).status, 500);
  EXPECT_EQ(send({.url = url("/test/redirect?to=/test/echo")}).status, 302);  // not followed unless asked to
}

TEST_F(HttpClient, StreamsPartsOfAFile) {
  const TemporaryFolder folder;
  std::string bytes(3'000'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  base::write_file(folder / "body", bytes);
  uint64_t reported = 0;
  HttpRequest request{.method = "PUT", .url = url("/test/echo"), .body_file = folder / "body"};
  request.on_upload = [&](uint64_t done, uint64_t) { reported = done; };
  EXPECT_EQ(json::parse(send(request).body)["sha256"], base::sha256_hex(bytes));
  EXPECT_EQ(reported, bytes.size());
  request.body_offset = 1'000'000;
  request.body_size = 12'345;
  EXPECT_EQ(json::parse(send(request).body)["sha256"], base::sha256_hex(bytes.substr(1'000'000, 12'345)));
  request.body_offset = 2'999'999;
  EXPECT_EQ(kind_of(request), ErrorKind::bad_input);
  request.body_file = folder / "absent";
  EXPECT_EQ(kind_of(request), ErrorKind::not_found);
}

TEST_F(HttpClient, BoundsWhatItTakes) {
  EXPECT_EQ(send({.url = url("/test/bytes/1000"), .max_bytes = 1000}).body.size(), 1000u);
  EXPECT_EQ(kind_of({.url = url("/test/bytes/1001"), .max_bytes = 1000}), ErrorKind::bad_input);
  EXPECT_EQ(kind_of({.url = url("/test/endless"), .max_bytes = 1 << 20}), ErrorKind::bad_input);
}

TEST_F(HttpClient, GivesUpInTime) {
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(kind_of({.url = url("/test/hang"), .timeout = 300ms}), ErrorKind::not_found);
  EXPECT_EQ(kind_of({.url = url("/test/trickle"), .timeout = 0ms, .stall_timeout = 1s}), ErrorKind::not_found);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 10s);
}

TEST_F(HttpClient, CancelsWithinASecond) {
  base::CancelToken cancel;
  std::thread later([&] {
    std::this_thread::sleep_for(200ms);
    cancel.request();
  });
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(kind_of({.url = url("/test/hang"), .cancel = &cancel}), ErrorKind::canceled);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 3s);
  later.join();
}

TEST_F(HttpClient, NamesWhatIsWrong) {
  EXPECT_EQ(kind_of({.url = "http://127.0.0.1:1/"}), ErrorKind::not_found);
  EXPECT_EQ(kind_of({.url = "http://no-such-host.invalid/"}), ErrorKind::not_found);
  EXPECT_EQ(kind_of({.url = "no url"}), ErrorKind::bad_input);
  EXPECT_EQ(kind_of({.url = "file:///etc/passwd"}), ErrorKind::bad_input);
  EXPECT_EQ(kind_of({.method = "GET /", .url = url("/")}), ErrorKind::bad_input);
  EXPECT_EQ(kind_of({.url = url("/"), .headers = {{"X", "a\r\nY: b"}}}), ErrorKind::bad_input);
  EXPECT_EQ(kind_of({.url = url("/"), .headers = {{"X: y", "a"}}}), ErrorKind::bad_input);
  try {
    send({.url = "http://user:word@127.0.0.1:1/path?token=hf_secret"});
  } catch (const base::Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("http://127.0.0.1:1/path"), std::string::npos) << message;
    EXPECT_EQ(message.find("word"), std::string::npos) << message;
    EXPECT_EQ(message.find("hf_secret"), std::string::npos) << message;
  }
}

TEST_F(HttpClient, FollowsRedirectsAsBrowsersDo) {
  const auto redirected = [&](const std::string& method, int status) {
    const HttpResponse answer = send({.method = method,
                                      .url = url(fmt::format("/test/redirect?status={}&to=/test/echo", status)),
                                      .body = method == "GET" ? "" : "body",
                                      .follow_redirects = 2});
    EXPECT_EQ(answer.url, url("/test/echo"));
    const json echo = json::parse(answer.body);
    return fmt::format("{} {}", echo["method"].get<std::string>(), echo["bytes"].get<int>());
  };
  for (const int status : {301, 302, 303, 307, 308}) EXPECT_EQ(redirected("GET", status), "GET 0") << status;
  for (const int status : {301, 302, 303}) EXPECT_EQ(redirected("POST", status), "GET 0") << status;
  for (const int status : {307, 308}) EXPECT_EQ(redirected("POST", status), "POST 4") << status;
  EXPECT_EQ(redirected("PUT", 302), "PUT 4");
  EXPECT_EQ(kind_of({.url = url("/test/loop"), .follow_redirects = 5}), ErrorKind::bad_input);
}

// Another port is another host here.
TEST_F(HttpClient, SecretsStayWithTheHostThatTheyAreFor) {
  const Headers headers = {{"Authorization", "Bearer secret"},
                           {"Cookie", "a=b"},
                           {"X-Key", "secret"},
                           {"Accept", "text/plain"},
                           {"Range", "bytes=0-"}};
  const auto seen = [&](const std::string& to) {
    const HttpResponse answer =
        send({.url = url("/test/redirect?to=" + url_encoded(to)), .headers = headers, .follow_redirects = 3});
    const json echo = json::parse(answer.body);
    std::string all;
    for (const char* name : {"authorization", "cookie", "x-key", "accept", "range"})
      all += header_seen(echo, name) + "; ";
    return all;
  };
  EXPECT_EQ(seen(server_->cdn_url("/test/echo")), "(none); (none); (none); text/plain; bytes=0-; ");
  EXPECT_EQ(seen("/test/echo"), "Bearer secret; a=b; secret; text/plain; bytes=0-; ");
  // Away and back again: what left the host once is not trusted again.
  EXPECT_EQ(seen(server_->cdn_url("/test/redirect?to=" + url_encoded(url("/test/echo")))),
            "(none); (none); (none); text/plain; bytes=0-; ");
}

// The server recomputes Signature Version 4 from what it received.
TEST_F(HttpClient, SignsForS3) {
  const TemporaryFolder folder;
  base::write_file(folder / "part", std::string(100'000, 'x'));
  const AwsKey key{.access_key = "AKIDEXAMPLE", .secret_key = "secret/key", .region = "eu-central-1"};
  const auto status = [&](HttpRequest request) {
    request.aws = key;
    const HttpResponse answer = send(request);
    EXPECT_EQ(answer.status, 200) << request.method << " " << request.url << " " << answer.body;
  };
  status({.url = url("/test/s3/bucket/key")});
  status({.method = "HEAD", .url = url("/test/s3/bucket/key")});
  status({.method = "DELETE", .url = url("/test/s3/bucket/a%20b%2Bc.png")});
  status({.method = "PUT",
          .url = url("/test/s3/bucket/key"),
          .headers = {{"Content-Type", "image/png"}},
          .body = "bytes"});
  status({.method = "PUT", .url = url("/test/s3/bucket/key"), .body_file = folder / "part"});
  status({.method = "POST", .url = url("/test/s3/bucket/key?uploads")});
  status({.method = "PUT",
          .url = url("/test/s3/bucket/key?uploadId=abc&partNumber=2"),
          .body_file = folder / "part",
          .body_size = 5000});
  status({.method = "POST", .url = url("/test/s3/bucket/key?uploadId=abc"), .body = "<CompleteMultipartUpload/>"});
  status({.url = url("/test/s3/bucket?prefix=a%2Fb&list-type=2"), .headers = {{"Range", "bytes=5-"}}});
  const HttpResponse wrong =
      send({.url = url("/test/s3/bucket/key"), .aws = AwsKey{.access_key = "AK", .secret_key = "other"}});
  EXPECT_EQ(wrong.status, 403);
}

}  // namespace
}  // namespace calotype::hub
