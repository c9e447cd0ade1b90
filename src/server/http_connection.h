// One connection: reads requests, has them answered, writes answers, until the client leaves or breaks the rules.
#pragma once

#include <Poco/Net/HTTPServerParams.h>
#include <Poco/Net/TCPServerConnection.h>

#include <atomic>

#include "server/connection_watch.h"
#include "server/http_server.h"

namespace Poco::Net {
class HTTPServerRequestImpl;
class HTTPServerResponseImpl;
}  // namespace Poco::Net

namespace calotype::server {

class HttpBody;
class HttpSession;

/// What all connections of a server share.
struct ConnectionContext {
  ConnectionContext(HttpOptions given, HttpServer::Handler handle);

  HttpOptions options;
  HttpServer::Handler handler;
  Poco::Net::HTTPServerParams::Ptr parameters;
  ConnectionWatch watch;
  std::atomic<bool> stopping{false};
};

class HttpConnection : public Poco::Net::TCPServerConnection {
 public:
  HttpConnection(const Poco::Net::StreamSocket& socket, ConnectionContext& context)
      : TCPServerConnection(socket), context_(context) {}
  void run() override;

 private:
  bool serve_one(HttpSession& session, ConnectionWatch::Watched& watched);
  Request parsed(const Poco::Net::HTTPServerRequestImpl& message) const;
  bool finish_body(HttpBody& body, ConnectionWatch::Watched& watched);

  ConnectionContext& context_;
};

/// "https://host:port" as the client sees this server: `public_url`, else what a proxy forwards, else Host. Values that
/// are no host names are ignored.
std::string base_url_of(const Request& request, const std::string& public_url, bool secure,
                        const std::string& own_address);

}  // namespace calotype::server
