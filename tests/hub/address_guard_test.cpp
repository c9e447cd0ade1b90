#include "hub/address_guard.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "hub/http_client.h"
#include "hub/hub_server.h"

namespace calotype::hub {
namespace {

using base::ErrorKind;
using test::HubServer;

IpAddress address(const std::string& text) {
  const auto parsed = IpAddress::parse(text);
  EXPECT_TRUE(parsed) << text;
  return parsed.value_or(IpAddress{});
}

/// The outcome of a check: "" when it passes, else the error's kind.
std::string outcome(const AddressGuard& guard, const std::string& url) {
  try {
    guard.check(url);
    return "";
  } catch (const base::Error& error) {
    return std::string(base::name(error.kind()));
  }
}

TEST(AddressGuard, RefusesTheInsideOfTheNetwork) {
  for (const char* text : {"127.0.0.1",
                           "127.255.255.254",
                           "0.0.0.0",
                           "10.0.0.1",
                           "172.16.0.1",
                           "172.31.255.255",
                           "192.168.1.1",
                           "100.64.0.1",
                           "100.127.255.255",
                           "198.18.0.1",
                           "::1",
                           "::",
                           "fc00::1",
                           "fd12:3456::1",
                           "fec0::1",
                           "::ffff:127.0.0.1",
                           "::ffff:10.0.0.1",
                           "64:ff9b::7f00:1",
                           "64:ff9b::a00:1",
                           "2002:7f00:1::",
                           "2002:c0a8:101::1",
                           "2a00:1450::5efe:10.0.0.1",
                           "2a00:1450::200:5efe:c0a8:101"}) {
    EXPECT_TRUE(refusal(address(text), {})) << text;
    EXPECT_FALSE(refusal(address(text), {.allow_private = true})) << text;
  }
}

TEST(AddressGuard, RefusesMetadataServicesAndOddAddressesAlways) {
  for (const char* text : {"169.254.169.254",
                           "169.254.170.2",
                           "169.254.0.1",
                           "100.100.100.200",
                           "168.63.129.16",
                           "192.0.0.192",
                           "::ffff:169.254.169.254",
                           "64:ff9b::a9fe:a9fe",
                           "2002:a9fe:a9fe::1",
                           "::a9fe:a9fe",
                           "::7f00:1",
                           "fd00:ec2::254",
                           "fd20:ce::254",
                           "fe80::1",
                           "224.0.0.1",
                           "239.255.255.255",
                           "240.0.0.1",
                           "255.255.255.255",
                           "ff02::1",
                           "192.0.2.1",
                           "198.51.100.1",
                           "203.0.113.1",
                           "2001:db8::1",
                           "64:ff9b:1::1",
                           "2001::1",
                           "100::1",
                           "4000::1",
                           "::ffff:0:1.2.3.4"}) {
    EXPECT_TRUE(refusal(address(text), {})) << text;
    EXPECT_TRUE(refusal(address(text), {.allow_private = true})) << text;
  }
}

TEST(AddressGuard, LetsPublicAddressesPass) {
  for (const char* text : {"1.1.1.1", "8.8.8.8", "126.255.255.255", "128.0.0.1", "172.15.255.255", "172.32.0.1",
                           "100.63.255.255", "100.128.0.1", "192.167.255.255", "223.255.255.255", "2606:4700::1111",
                           "2a00:1450:4001::1", "64:ff9b::101:101", "2002:101:101::1", "::ffff:1.1.1.1"})
    EXPECT_FALSE(refusal(address(text), {})) << text;
}

// What curl would connect to, however it is written; no name is resolved for any of them.
TEST(AddressGuard, SeesThroughSpellings) {
  const AddressGuard guard({}, [](const std::string& host) {
    ADD_FAILURE() << "resolved " << host;
    return std::vector<IpAddress>{};
  });
  for (const char* host :
       {"2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "0x7f.1", "017700000001", "127.0.1", "[::1]",
        "[::ffff:7f00:1]", "[::ffff:127.0.0.1]", "[64:ff9b::10.0.0.1]", "2852039166", "0xa9fea9fe",
        "0251.0376.0251.0376", "%31%32%37.0.0.1", "user:word@127.0.0.1", "0"})
    EXPECT_EQ(outcome(guard, "http://" + std::string(host) + "/x"), "bad_input") << host;
  EXPECT_EQ(outcome(guard, "HTTP://16843009:8080/"), "");  // 1.1.1.1
  EXPECT_EQ(guard.check("HTTP://16843009:8080/").host, "1.1.1.1");
  EXPECT_EQ(guard.check("HTTP://16843009:8080/").port, 8080);
}

TEST(AddressGuard, RefusesWhatIsNoWebAddress) {
  const AddressGuard guard({.allow_private = true});
  for (const char* url :
       {"", "example.com", "/path", "file:///etc/passwd", "ftp://1.1.1.1/", "gopher://1.1.1.1/", "http://",
        "http://1.1.1.1:99999/", "http://1.1.1.1:0/", "javascript:alert(1)", "http://1.1.1.1/a b",
        "http://1.1.1.1/\r\nX: y", "http://[fe80::1%25eth0]/", "dict://1.1.1.1:11211/"})
    EXPECT_EQ(outcome(guard, url), "bad_input") << url;
}

TEST(AddressGuard, ChecksEveryAddressOfAName) {
  std::vector<IpAddress> answer;
  int asked = 0;
  const AddressGuard guard({}, [&](const std::string& host) {
    EXPECT_EQ(host, "example.com");
    ++asked;
    return answer;
  });
  EXPECT_EQ(outcome(guard, "http://Example.com/"), "not_found");
  answer = {address("1.1.1.1"), address("2606:4700::1111")};
  EXPECT_EQ(guard.check("https://example.com/").addresses, answer);
  EXPECT_EQ(guard.check("https://example.com/").port, 443);
  answer.push_back(address("10.1.2.3"));
  asked = 0;
  EXPECT_EQ(outcome(guard, "http://example.com/"), "bad_input");
  EXPECT_EQ(asked, 1);
  try {
    guard.check("http://user:word@example.com/path?key=secret");
  } catch (const base::Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("private address"), std::string::npos) << message;
    for (const char* hidden : {"10.1.2.3", "word", "secret"})
      EXPECT_EQ(message.find(hidden), std::string::npos) << message;
  }
}

// Requests go to the address that was checked, whatever the name means to anybody else.
TEST(AddressGuard, PinsTheCheckedAddress) {
  const HubServer server;
  int asked = 0;
  const AddressGuard guard({.allow_private = true}, [&](const std::string&) {
    ++asked;
    return std::vector{address("127.0.0.1")};
  });
  const std::string url = fmt::format("http://pinned.invalid:{}/test/echo", server.port());
  for (int i = 1; i <= 2; ++i) {
    const HttpResponse response = send({.url = url, .guard = &guard});
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(asked, i);  // once per request
  }
  // Without the guard the name is unknown: nothing was remembered from the guarded requests.
  EXPECT_THROW(send({.url = url}), base::Error);
}

// The name is asked for once per request. What the check saw is refused here, whatever the name means a moment later,
// and where the check saw nothing bad, the request may go to that address only.
TEST(AddressGuard, RebindingGainsNothing) {
  const HubServer server;
  int asked = 0;
  // localhost means 127.0.0.1 to the system; the guard is told a public address at which nobody answers.
  const AddressGuard guard({}, [&](const std::string&) {
    ++asked;
    return std::vector{address("1.2.3.4")};
  });
  const std::string url = fmt::format("http://localhost:{}/test/echo", server.port());
  EXPECT_EQ(outcome(guard, url), "");
  EXPECT_THROW(send({.url = url, .timeout = std::chrono::milliseconds(500), .guard = &guard}), base::Error);
  EXPECT_EQ(asked, 2);
  EXPECT_TRUE(server.log("/test/echo").empty());
}

TEST(AddressGuard, ChecksEveryHopOfARedirect) {
  const HubServer server;
  const AddressGuard guard({.allow_private = true});
  const auto redirected = [&](const std::string& to) {
    return send({.url = server.url("/test/redirect?to=" + url_encoded(to)), .follow_redirects = 3, .guard = &guard});
  };
  EXPECT_EQ(redirected(server.cdn_url("/test/echo")).status, 200);
  for (const char* to : {"http://169.254.169.254/latest/meta-data/", "http://2852039166/", "file:///etc/passwd",
                         "http://[::ffff:169.254.169.254]/", "gopher://127.0.0.1:6379/_x"}) {
    try {
      redirected(to);
      ADD_FAILURE() << to;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::bad_input) << error.what();
    }
  }
}

}  // namespace
}  // namespace calotype::hub
