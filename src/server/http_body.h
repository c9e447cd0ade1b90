// The body of a request as a stream: Content-Length or chunks, checked, within limits and deadlines.
//
// POCO's own chunked stream takes a damaged chunk for the end of the body: a broken upload would pass for a whole one.
#pragma once

#include <Poco/Net/HTTPServerParams.h>
#include <Poco/Net/HTTPServerResponseImpl.h>
#include <Poco/Net/HTTPServerSession.h>

#include <array>
#include <chrono>
#include <optional>
#include <streambuf>

#include "server/connection_watch.h"
#include "server/http_server.h"

namespace calotype::server {

/// POCO's session with its reads in reach.
class HttpSession : public Poco::Net::HTTPServerSession {
 public:
  using Poco::Net::HTTPServerSession::get;
  using Poco::Net::HTTPServerSession::HTTPServerSession;
  using Poco::Net::HTTPServerSession::peek;
  using Poco::Net::HTTPServerSession::read;
};

class HttpBody : public std::streambuf {
 public:
  struct Framing {
    bool chunked = false;
    uint64_t length = 0;            ///< of a body that is not chunked
    bool expects_continue = false;  ///< the client waits for "100 Continue" before it sends
  };

  HttpBody(HttpSession& session, Poco::Net::HTTPServerResponseImpl& response, Framing framing,
           ConnectionWatch::Watched& watched, const HttpLimits& limits);

  /// Reads and drops what the handler left, so that the next request can be read; false when there is more than that
  /// or the body was broken.
  bool skip_rest(uint64_t at_most);
  bool finished() const { return finished_; }

 protected:
  int_type underflow() override;
  std::streamsize xsgetn(char* to, std::streamsize count) override;

 private:
  size_t read_some(char* to, size_t size);
  uint64_t next_chunk_size();
  void end_of_chunks();
  char next_char();
  void made_progress(size_t bytes);

  HttpSession& session_;
  Poco::Net::HTTPServerResponseImpl& response_;
  Framing framing_;
  ConnectionWatch::Watched& watched_;
  const HttpLimits& limits_;
  std::chrono::steady_clock::time_point start_;
  uint64_t left_ = 0;      // of the body, or of the present chunk
  uint64_t received_ = 0;  // in all
  bool started_ = false, first_chunk_ = true, finished_ = false, reading_ = false;
  std::array<char, 4096> buffer_;
};

}  // namespace calotype::server
