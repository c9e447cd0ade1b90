#include "server/http_server.h"

#include <Poco/Net/SecureServerSocket.h>
#include <Poco/Net/TCPServer.h>
#include <Poco/ThreadPool.h>
#include <fmt/format.h>

#include <thread>

#include "base/error.h"
#include "server/http_connection.h"

namespace calotype::server {
using base::ErrorKind;
namespace net = Poco::Net;

namespace {

// Handlers recurse into JSON (depth-limited), SQLite and OpenSSL; pages that are never touched cost nothing.
constexpr int kStackBytes = 512 << 10;

class Factory : public net::TCPServerConnectionFactory {
 public:
  explicit Factory(ConnectionContext& context) : context_(context) {}
  net::TCPServerConnection* createConnection(const net::StreamSocket& socket) override {
    return new HttpConnection(socket, context_);
  }

 private:
  ConnectionContext& context_;
};

net::Context::Ptr tls_context(const HttpOptions& options) {
  try {
    net::Context::Params parameters;
    parameters.certificateFile = options.certificate;
    parameters.privateKeyFile = options.key;
    parameters.verificationMode = net::Context::VERIFY_NONE;  // clients show tokens, not certificates
    net::Context::Ptr context = new net::Context(net::Context::TLS_SERVER_USE, parameters);
    context->requireMinimumProtocol(net::Context::PROTO_TLSV1_2);
    return context;
  } catch (const Poco::Exception& error) {
    base::fail(ErrorKind::bad_input, "--tls-cert {} and --tls-key {} cannot be used: {}", options.certificate,
               options.key, error.displayText());
  }
}

net::ServerSocket listen(const HttpOptions& options) {
  base::check(options.certificate.empty() == options.key.empty(), ErrorKind::bad_input,
              "TLS needs both --tls-cert and --tls-key");
  constexpr int kBacklog = 1024;
  try {
    const net::SocketAddress address(options.host, options.port);
    if (options.certificate.empty()) {
      net::ServerSocket socket;
      socket.bind(address, /*reuseAddress=*/true, /*reusePort=*/false);
      socket.listen(kBacklog);
      return socket;
    }
    net::SecureServerSocket socket(tls_context(options));
    socket.bind(address, /*reuseAddress=*/true, /*reusePort=*/false);
    socket.listen(kBacklog);
    return socket;
  } catch (const Poco::Exception& error) {
    base::fail(ErrorKind::bad_input, "cannot listen on {}:{}: {}", options.host, options.port, error.displayText());
  }
}

net::TCPServerParams::Ptr thread_parameters(const HttpLimits& limits) {
  net::TCPServerParams::Ptr parameters = new net::TCPServerParams;
  parameters->setMaxThreads(static_cast<int>(limits.connections));
  parameters->setMaxQueued(256);  // a burst, until threads are there
  parameters->setThreadIdleTime(Poco::Timespan(10, 0));
  return parameters;
}

}  // namespace

struct HttpServer::Parts {
  Parts(HttpOptions given, Handler handler)
      : context(std::move(given), std::move(handler)),
        pool(8, static_cast<int>(context.options.limits.connections) + 8, 60, kStackBytes),
        socket(listen(context.options)),
        server(new Factory(context), pool, socket, thread_parameters(context.options.limits)) {}

  ConnectionContext context;
  Poco::ThreadPool pool;
  net::ServerSocket socket;
  net::TCPServer server;
  bool stopped = false;
};

HttpServer::HttpServer(HttpOptions options, Handler handler)
    : parts_(std::make_unique<Parts>(std::move(options), std::move(handler))) {
  parts_->server.start();
}

HttpServer::~HttpServer() { stop(std::chrono::milliseconds(0)); }

void HttpServer::stop(std::chrono::milliseconds patience) {
  if (parts_->stopped) return;
  parts_->stopped = true;
  parts_->context.stopping = true;
  parts_->server.stop();
  const auto end = std::chrono::steady_clock::now() + patience;
  while (connections() > 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  parts_->context.watch.shut_down_all();
  parts_->pool.joinAll();
}

uint16_t HttpServer::port() const { return parts_->socket.address().port(); }

std::string HttpServer::url() const {
  const HttpOptions& options = parts_->context.options;
  if (!options.public_url.empty()) return options.public_url;
  const bool everywhere = options.host == "0.0.0.0" || options.host == "::";
  std::string host = everywhere ? "localhost" : options.host;
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return fmt::format("{}://{}:{}", options.certificate.empty() ? "http" : "https", host, port());
}

size_t HttpServer::connections() const { return parts_->context.watch.open(); }

bool is_loopback_host(const std::string& host) {
  if (host == "localhost" || host.ends_with(".localhost")) return true;
  net::IPAddress address;
  return net::IPAddress::tryParse(host, address) && address.isLoopback();
}

}  // namespace calotype::server
