// The HTTP side: sockets, TLS, keep-alive, bodies in chunks, limits against slow and oversized clients. What a request
// means is the handler's business.
//
//   HttpServer server({.host = "127.0.0.1", .port = 5000}, [](Request& request) { return router_answer(request); });
//   …                       // answers until it is destroyed or stop() is called
//
// The handler is called on many threads at once and must not throw. Built on POCO's TCPServer: one thread per
// connection with a small stack, so that 1,500 clients may wait at once (about 60 kB each, bench/results.md).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "server/http_message.h"

namespace calotype::server {

struct HttpLimits {
  size_t connections = 2000;                      ///< further ones are closed at once
  size_t header_bytes = 64 << 10;                 ///< request line and headers
  uint64_t body_bytes = uint64_t{16} << 30;       ///< of any request; JSON routes have their own, smaller limit
  std::chrono::milliseconds header_time{15'000};  ///< from a request's first byte to the end of its headers
  std::chrono::milliseconds idle_time{60'000};    ///< between requests of one connection
  std::chrono::milliseconds body_pause{30'000};   ///< without any progress of a body
  uint64_t body_rate = 2048;                      ///< bytes per second, in the long run
};

struct HttpOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;             ///< 0: a free one
  std::string certificate, key;  ///< PEM files; both or none
  std::string public_url;        ///< "https://art.example.com": replaces what headers say about our own address
  HttpLimits limits = {};
};

class HttpServer {
 public:
  using Handler = std::function<Response(Request&)>;

  /// Listens when this returns. Errors: bad_input for an address that cannot be bound or a certificate that cannot be
  /// read.
  HttpServer(HttpOptions options, Handler handler);
  ~HttpServer();
  /// No new connections; the present ones have `patience` to end, then they are cut.
  void stop(std::chrono::milliseconds patience = std::chrono::seconds(5));

  uint16_t port() const;
  std::string url() const;
  size_t connections() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// Whether a host name means this machine only: localhost, 127.0.0.0/8, ::1.
bool is_loopback_host(const std::string& host);

}  // namespace calotype::server
