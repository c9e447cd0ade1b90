// The HTTP side against raw bytes: limits, slow clients, chunks, keep-alive.
#include "server/http_server.h"

#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "base/error.h"
#include "server/problem.h"

namespace calotype::server {
namespace {
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

class Client {
 public:
  explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval patience{10, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~Client() { ::close(socket_); }
  bool send(std::string_view text) {
    return ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  /// Until the end of the connection, or until `mark` was seen.
  std::string read(const std::string& mark = "") {
    std::string text;
    char block[4096];
    for (;;) {
      if (!mark.empty() && text.find(mark) != std::string::npos) return text;
      const ssize_t count = ::recv(socket_, block, sizeof block, 0);
      if (count <= 0) return text;
      text.append(block, static_cast<size_t>(count));
    }
  }

 private:
  int socket_;
};

/// Answers with method, path and the body's size; "/wait" waits a second; throws what the body throws, as the program
/// does.
Response echo(Request& request) {
  try {
    if (request.path == "/wait") std::this_thread::sleep_for(1s);
    if (request.path == "/ignore") return text_response("ignored", "text/plain");
    const std::string body = request.read_body();
    return text_response(
        request.method + " " + request.path + " " + std::to_string(body.size()) + " " + body.substr(0, 20),
        "text/plain");
  } catch (const std::exception& error) {
    return problem_response(error, Dialect::replicate);
  }
}

HttpOptions quick() {
  HttpOptions options;
  options.limits = {.connections = 50,
                    .header_bytes = 8000,
                    .body_bytes = 1 << 20,
                    .header_time = 600ms,
                    .idle_time = 1500ms,
                    .body_pause = 600ms,
                    .body_rate = 1024};
  return options;
}

std::string answer(uint16_t port, const std::string& request) {
  Client client(port);
  client.send(request);
  return client.read();
}

TEST(HttpServer, AnswersAnyMethodAndKeepsTheConnection) {
  HttpServer server(quick(), echo);
  Client client(server.port());
  client.send("QUERY /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\ncats");
  EXPECT_NE(client.read("cats").find("QUERY /v1/models 4 cats"), std::string::npos);
  client.send("POST /cancel HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n");
  EXPECT_NE(client.read("cancel 0").find("200 OK"), std::string::npos);
  client.send("POST /cancel HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n");  // no length at all
  EXPECT_NE(client.read("cancel 0").find("200 OK"), std::string::npos);
  client.send("HEAD /x HTTP/1.1\r\nHost: x\r\n\r\nGET /y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string both = client.read();
  EXPECT_EQ(both.find("HEAD /x"), std::string::npos);
  EXPECT_NE(both.find("GET /y 0"), std::string::npos);
}

TEST(HttpServer, UnreadBodiesDoNotBecomeRequests) {
  HttpServer server(quick(), echo);
  Client client(server.port());
  client.send("POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 32\r\n\r\nGET /smuggled HTTP/1.1\r\nA: b\r\n\r\n");
  EXPECT_NE(client.read("ignored").find("200 OK"), std::string::npos);
  client.send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.read("/next 0").find("GET /next 0"), std::string::npos);
}

TEST(HttpServer, ReadsChunks) {
  HttpServer server(quick(), echo);
  const std::string head = "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
  EXPECT_NE(
      answer(server.port(), head + "4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\nTrailer: t\r\n\r\n").find("POST /c 7 abcdefg"),
      std::string::npos);
  for (const char* broken : {"4\r\nabcdefg\r\n0\r\n\r\n", "zz\r\nabcd\r\n0\r\n\r\n", "\r\n", "ffffffffffffffff\r\nabc",
                             "-1\r\nabc\r\n0\r\n\r\n"})
    EXPECT_NE(answer(server.port(), head + broken).find("400 Bad Request"), std::string::npos) << broken;
}

TEST(HttpServer, RefusesAmbiguousFraming) {
  HttpServer server(quick(), echo);
  for (const char* headers :
       {"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: -4\r\n", "Content-Length: 4x\r\n", "Content-Length: 99999999999999999999\r\n"})
    EXPECT_NE(answer(server.port(), std::string("POST / HTTP/1.1\r\nHost: x\r\n") + headers + "\r\nabcd")
                  .find("400 Bad Request"),
              std::string::npos)
        << headers;
  EXPECT_NE(answer(server.port(), "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n").find("501 "),
            std::string::npos);
}

TEST(HttpServer, LimitsHeadersAndBodies) {
  HttpServer server(quick(), echo);
  EXPECT_NE(answer(server.port(), "GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(7000, 'a') +
                                      "\r\nB: " + std::string(7000, 'b') + "\r\n\r\n")
                .find(" 431 "),
            std::string::npos);
  std::string many = "GET / HTTP/1.1\r\nHost: x\r\n";
  for (int i = 0; i < 1000; ++i) many += "A: b\r\n";
  EXPECT_NE(answer(server.port(), many + "\r\n").find(" 400 "), std::string::npos);
  EXPECT_NE(
      answer(server.port(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + std::string(2000000, 'x'))
          .find(" 413 "),
      std::string::npos);
}

TEST(HttpServer, NonsenseGets400) {
  HttpServer server(quick(), echo);
  for (const std::string text : {"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9\r\n\r\n garbage"})
    answer(server.port(), text);  // whatever it says, it lives
  EXPECT_NE(answer(server.port(), "GET /alive HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").find("GET /alive"),
            std::string::npos);
}

// A byte now and then keeps a socket's own timeout away for ever; the deadline counts for the whole.
TEST(HttpServer, SlowClientsAreCutOff) {
  HttpServer server(quick(), echo);
  const auto cut_after = [&](const std::string& begin) {
    Client client(server.port());
    const auto start = Clock::now();
    client.send(begin);
    while (Clock::now() - start < 8s && client.send("a")) std::this_thread::sleep_for(50ms);
    return Clock::now() - start;
  };
  EXPECT_LT(cut_after("GET / HTTP/1.1\r\nHost: "), 3s);
  EXPECT_LT(cut_after("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"), 4s);
  EXPECT_LT(cut_after("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n"), 4s);
}

TEST(HttpServer, IdleConnectionsEnd) {
  HttpServer server(quick(), echo);
  const auto start = Clock::now();
  Client client(server.port());
  EXPECT_EQ(client.read(), "");
  EXPECT_LT(Clock::now() - start, 5s);
}

TEST(HttpServer, StopsWhileClientsWait) {
  HttpServer server(quick(), echo);
  Client client(server.port());
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  std::this_thread::sleep_for(100ms);
  server.stop(5s);
  EXPECT_NE(client.read().find("GET /wait"), std::string::npos);
}

TEST(HttpServer, SaysWhyItCannotListen) {
  HttpServer first(quick(), echo);
  HttpOptions same = quick();
  same.port = first.port();
  EXPECT_THROW(HttpServer(same, echo), base::Error);
  HttpOptions tls = quick();
  tls.certificate = tls.key = "/nonexistent.pem";
  EXPECT_THROW(HttpServer(tls, echo), base::Error);
}

}  // namespace
}  // namespace calotype::server
