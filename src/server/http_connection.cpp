#include "server/http_connection.h"

#include <Poco/Net/HTTPServerRequestImpl.h>
#include <Poco/Net/NetException.h>
#include <Poco/Net/StreamSocketImpl.h>
#include <Poco/String.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/utf8.h"
#include "server/http_body.h"
#include "server/problem.h"

namespace calotype::server {
namespace net = Poco::Net;
using namespace std::chrono_literals;

namespace {

// What is left of a refused upload is read for a while: a client that is cut off while it sends sees a broken
// connection instead of the answer.
constexpr uint64_t kSkippedBody = 512 << 20;
constexpr auto kSkippingTime = 20s;
constexpr auto kSendPause = 60s;  // a client that reads nothing for so long is gone

/// Throws Problem for framing that another program in between may read differently (request smuggling, RFC 9112 §6.3).
HttpBody::Framing framing(const net::HTTPServerRequestImpl& message) {
  int lengths = 0, codings = 0;
  for (const auto& [name, value] : message) {
    lengths += Poco::icompare(name, "Content-Length") == 0;
    codings += Poco::icompare(name, "Transfer-Encoding") == 0;
  }
  HttpBody::Framing result{.chunked = codings > 0, .length = 0, .expects_continue = message.getExpectContinue()};
  if (lengths + codings > 1)
    throw Problem(400, "Bad request", "A request has one Content-Length or one Transfer-Encoding.");
  if (codings && Poco::icompare(Poco::trim(message.getTransferEncoding()), "chunked") != 0)
    throw Problem(501, "Not implemented", "The only Transfer-Encoding that is understood is chunked.");
  if (lengths) {
    const std::string text = Poco::trim(message.get("Content-Length"));
    if (text.empty() || text.size() > 18 || !std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c); }))
      throw Problem(400, "Bad request", "Content-Length is no number of bytes.");
    result.length = std::stoull(text);
  }
  return result;
}

bool is_host(std::string_view text) {
  return !text.empty() && text.size() <= 260 && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '-' || c == '_' || c == ':' || c == '[' || c == ']';
  });
}

/// Proxies append to a list; the first is what the client asked for.
std::string_view first_of(std::string_view list) {
  list = list.substr(0, list.find(','));
  while (list.ends_with(' ')) list.remove_suffix(1);
  return list;
}

std::vector<std::pair<std::string, std::string>> parsed_query(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> query;
  while (!text.empty() && query.size() < 100) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(pair.size() + 1, text.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    auto name = percent_decoded(pair.substr(0, equals), true);
    auto value = percent_decoded(pair.substr(std::min(equals + 1, pair.size())), true);
    if (!name || !value)
      throw Problem(400, "Bad request", "The query of the URL has a '%' without two hexadecimal digits.");
    if (base::first_broken_utf8(*name + *value) || value->find('\0') != std::string::npos)
      throw Problem(400, "Bad request", "The query of the URL is not UTF-8, or has a NUL.");
    if (!pair.empty()) query.emplace_back(std::move(*name), std::move(*value));
  }
  return query;
}

void send(net::HTTPServerResponseImpl& message, Response& response, bool head, const std::string& version) {
  message.setStatus(static_cast<net::HTTPResponse::HTTPStatus>(response.status));
  message.setReason(net::HTTPResponse::getReasonForStatus(message.getStatus()));
  for (const auto& [name, value] : response.headers) message.set(name, value);
  message.set("X-Content-Type-Options", "nosniff");
  if (!response.content_type.empty()) message.setContentType(response.content_type);
  // Flushed here and not when POCO's object goes away: what is left of a refused upload is read in between.
  if (!response.write) {
    if (response.status != 204 && response.status != 304)
      message.setContentLength64(static_cast<Poco::Int64>(response.body.size()));
    std::ostream& whole = message.send();
    if (!head) whole.write(response.body.data(), static_cast<std::streamsize>(response.body.size()));
    whole.flush();
    return;
  }
  if (response.length) {
    message.setContentLength64(static_cast<Poco::Int64>(*response.length));
  } else if (version == net::HTTPMessage::HTTP_1_1) {
    message.setChunkedTransferEncoding(true);
  } else {
    message.setKeepAlive(false);  // the end of the connection is the end of the body
  }
  std::ostream& out = message.send();
  if (!head) response.write(out);
  out.flush();
  // A body that ended early must not look whole: the connection ends instead.
  if (!out.good()) throw net::NetException("the client is gone");
}

}  // namespace

ConnectionContext::ConnectionContext(HttpOptions given, HttpServer::Handler handle)
    : options(std::move(given)), handler(std::move(handle)), parameters(new net::HTTPServerParams) {
  const auto span = [](std::chrono::milliseconds time) {
    return Poco::Timespan(Poco::Timespan::TimeDiff(time.count()) * 1000);
  };
  parameters->setTimeout(span(std::max<std::chrono::milliseconds>(options.limits.idle_time, kSendPause)));
  parameters->setKeepAlive(true);
  parameters->setKeepAliveTimeout(span(options.limits.idle_time));
  parameters->setMaxKeepAliveRequests(0);
}

void HttpConnection::run() {
  // The watch works on the bare socket: a TLS connection must not be used by two threads.
  auto watched = context_.watch.add(socket().impl()->sockfd());
  try {
    HttpSession session(socket(), context_.parameters);
    watched.allow(context_.options.limits.idle_time);
    while (!context_.stopping && session.hasMoreRequests()) {
      if (!serve_one(session, watched)) break;
      watched.allow(context_.options.limits.idle_time);
    }
  } catch (const std::exception&) {
    // The client left, or spoke something other than HTTP; there is nobody to tell.
  }
}

Request HttpConnection::parsed(const net::HTTPServerRequestImpl& message) const {
  Request request;
  request.method = message.getMethod();
  std::string_view target = message.getURI();
  if (target.starts_with("http://") || target.starts_with("https://"))  // as proxies are asked; RFC 9112 §3.2.2
    target.remove_prefix(std::min(target.find('/', target.find("//") + 2), target.size()));
  target = target.substr(0, target.find('#'));
  const size_t question = std::min(target.find('?'), target.size());
  request.path = target.empty() || question == 0 ? "/" : std::string(target.substr(0, question));
  request.query = parsed_query(target.substr(std::min(question + 1, target.size())));
  size_t bytes = message.getURI().size();
  for (const auto& [name, value] : message) {
    request.headers.emplace_back(Poco::toLower(name), value);
    bytes += name.size() + value.size() + 4;
  }
  if (bytes > context_.options.limits.header_bytes)
    throw Problem(431, "Request header fields too large",
                  fmt::format("URL and headers have {} bytes, at most {} are accepted.", bytes,
                              context_.options.limits.header_bytes));
  const net::IPAddress peer = message.clientAddress().host();
  request.peer = peer.toString();
  request.peer_is_loopback = peer.isLoopback();
  request.base_url = base_url_of(request, context_.options.public_url, !context_.options.certificate.empty(),
                                 message.serverAddress().toString());
  return request;
}

bool HttpConnection::finish_body(HttpBody& body, ConnectionWatch::Watched& watched) {
  if (body.finished()) return true;
  watched.allow(kSkippingTime);
  if (body.skip_rest(kSkippedBody)) return true;
  ::shutdown(socket().impl()->sockfd(), SHUT_WR);
  return false;
}

/// False when the connection cannot be used again.
bool HttpConnection::serve_one(HttpSession& session, ConnectionWatch::Watched& watched) {
  watched.allow(context_.options.limits.header_time);
  net::HTTPServerResponseImpl message(session);
  std::optional<net::HTTPServerRequestImpl> incoming;
  Response response;
  const auto refuse = [&] {
    response = problem_response(Problem(400, "Bad request", "This is no HTTP request, or its headers are too long."),
                                Dialect::replicate);
    message.setVersion(net::HTTPMessage::HTTP_1_1);
    message.setKeepAlive(false);
    send(message, response, false, net::HTTPMessage::HTTP_1_1);
    return false;
  };
  try {
    incoming.emplace(message, session, context_.parameters.get());
  } catch (const net::NoMessageException&) {
    return false;
  } catch (const net::MessageException&) {
    return refuse();
  } catch (const Poco::SyntaxException&) {  // a Content-Length that is no number
    return refuse();
  }
  watched.unlimited();
  message.setDate(Poco::Timestamp());
  message.setVersion(incoming->getVersion());
  message.setKeepAlive(incoming->getKeepAlive() && !context_.stopping);

  std::optional<HttpBody> body;
  try {
    Request request = parsed(*incoming);
    const HttpBody::Framing frame = framing(*incoming);
    body.emplace(session, message, frame, watched, context_.options.limits);
    std::istream stream(&*body);
    stream.exceptions(std::ios::badbit);  // passes on what the body throws
    request.body = &stream;
    if (!frame.chunked) request.content_length = frame.length;
    response = context_.handler(request);
  } catch (const std::exception& error) {  // only from before the handler
    response = problem_response(error, Dialect::replicate);
  }
  // Without known framing, where the next request begins is unknown as well.
  if (!body || (!body->finished() && incoming->getExpectContinue())) message.setKeepAlive(false);
  socket().setSendTimeout(Poco::Timespan(kSendPause.count(), 0));
  send(message, response, incoming->getMethod() == net::HTTPRequest::HTTP_HEAD, incoming->getVersion());
  return body && finish_body(*body, watched) && message.getKeepAlive();
}

std::string base_url_of(const Request& request, const std::string& public_url, bool secure,
                        const std::string& own_address) {
  if (!public_url.empty()) return public_url;
  std::string_view host = first_of(request.header("x-forwarded-host"));
  if (!is_host(host)) host = request.header("host");
  if (!is_host(host)) host = own_address;
  const std::string_view scheme = first_of(request.header("x-forwarded-proto"));
  if (scheme == "https" || scheme == "http") return fmt::format("{}://{}", scheme, host);
  return fmt::format("{}://{}", secure ? "https" : "http", host);
}

}  // namespace calotype::server
