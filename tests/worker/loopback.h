// A little HTTP server on 127.0.0.1 that answers as a test wants, and remembers what it was asked.
//
//   Loopback server([](const Asked& asked) { return Reply{.body = "hello"}; });
//   server.url("/x")
#pragma once

#include <Poco/Net/HTTPRequestHandler.h>
#include <Poco/Net/HTTPRequestHandlerFactory.h>
#include <Poco/Net/HTTPServer.h>
#include <Poco/Net/HTTPServerParams.h>
#include <Poco/Net/HTTPServerRequest.h>
#include <Poco/Net/HTTPServerResponse.h>
#include <Poco/StreamCopier.h>
#include <fmt/format.h>

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace calotype::test {

struct Asked {
  std::string method, target, body;
  std::map<std::string, std::string> headers;  // names in lower case
};

struct Reply {
  int status = 200;
  std::string body = {}, content_type = "application/json";
  std::string location = {};
};

class Loopback {
 public:
  using Handler = std::function<Reply(const Asked&)>;

  explicit Loopback(Handler handler)
      : handler_(std::move(handler)),
        socket_(Poco::Net::SocketAddress("127.0.0.1", 0)),
        server_(new Factory(*this), socket_, new Poco::Net::HTTPServerParams) {
    server_.start();
  }
  ~Loopback() { server_.stopAll(/*abortCurrent=*/true); }

  std::string url(const std::string& path = "") const {
    return fmt::format("http://127.0.0.1:{}{}", socket_.address().port(), path);
  }
  std::vector<Asked> asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  struct Request : Poco::Net::HTTPRequestHandler {
    explicit Request(Loopback& server) : server_(server) {}
    void handleRequest(Poco::Net::HTTPServerRequest& request, Poco::Net::HTTPServerResponse& response) override {
      Asked asked{.method = request.getMethod(), .target = request.getURI(), .body = {}, .headers = {}};
      Poco::StreamCopier::copyToString(request.stream(), asked.body);
      for (const auto& [name, value] : request) {
        std::string lower = name;
        for (char& c : lower) c = static_cast<char>(std::tolower(c));
        asked.headers[lower] = value;
      }
      {
        const std::lock_guard lock(server_.mutex_);
        server_.asked_.push_back(asked);
      }
      const Reply reply = server_.handler_(asked);
      response.setStatus(static_cast<Poco::Net::HTTPResponse::HTTPStatus>(reply.status));
      response.setContentType(reply.content_type);
      if (!reply.location.empty()) response.set("Location", reply.location);
      response.setContentLength(static_cast<std::streamsize>(reply.body.size()));
      response.send() << reply.body;
    }
    Loopback& server_;
  };
  struct Factory : Poco::Net::HTTPRequestHandlerFactory {
    explicit Factory(Loopback& server) : server_(server) {}
    Poco::Net::HTTPRequestHandler* createRequestHandler(const Poco::Net::HTTPServerRequest&) override {
      return new Request(server_);
    }
    Loopback& server_;
  };

  Handler handler_;
  mutable std::mutex mutex_;
  std::vector<Asked> asked_;
  Poco::Net::ServerSocket socket_;
  Poco::Net::HTTPServer server_;
};

}  // namespace calotype::test
