#include "hub/http_client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <exception>
#include <memory>
#include <mutex>

#include "base/error.h"
#include "base/sha256.h"
#include "hub/address_guard.h"
#include "hub/aws_signature.h"
#include "hub/url.h"

namespace calotype::hub {

using base::ErrorKind;

namespace {

using EasyHandle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;

EasyHandle new_easy() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  EasyHandle easy(curl_easy_init(), curl_easy_cleanup);
  if (!easy) throw std::bad_alloc();
  return easy;
}

thread_local EasyHandle idle{nullptr, curl_easy_cleanup};

/// The thread's handle, which keeps its connections, unless it is in use or a guard forbids sharing connections and
/// remembered addresses with anybody.
class EasyLease {
 public:
  explicit EasyLease(bool fresh) : fresh_(fresh), easy_(!fresh && idle ? std::move(idle) : new_easy()) {}
  ~EasyLease() {
    if (fresh_ || idle) return;
    curl_easy_reset(easy_.get());
    idle = std::move(easy_);
  }
  EasyLease(const EasyLease&) = delete;
  EasyLease& operator=(const EasyLease&) = delete;
  CURL* get() const { return easy_.get(); }

 private:
  bool fresh_;
  EasyHandle easy_;
};

using HeaderList = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

void append(HeaderList& list, const std::string& line) {
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  if (!longer) throw std::bad_alloc();
  list.release();
  list.reset(longer);
}

bool is_token(std::string_view text) {  // RFC 9110 §5.6.2
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return c > 0x20 && c < 0x7F && !std::strchr("\"(),/:;<=>?@[\\]{}", c);
  });
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

/// One hop of a request: what changes when a redirect is followed.
struct Hop {
  Url url;
  std::string method;
  bool with_body = false;
  bool foreign = false;  ///< another origin than the one that the caller named
};

/// The part of a file that is sent as a body.
class BodyFile {
 public:
  explicit BodyFile(const HttpRequest& request) : path_(request.body_file), begin_(request.body_offset) {
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    base::check(descriptor_ >= 0, ErrorKind::not_found, "{}: cannot open: {}", path_.string(), std::strerror(errno));
    struct stat status {};
    const bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    const uint64_t bytes = regular ? static_cast<uint64_t>(status.st_size) : 0;
    size_ = request.body_size.value_or(bytes - std::min(begin_, bytes));
    const bool inside = regular && begin_ <= bytes && size_ <= bytes - begin_;
    if (!inside) ::close(descriptor_);
    base::check(inside, ErrorKind::bad_input, "{}: {} bytes from byte {} on are to be sent, it is {}", path_.string(),
                size_, begin_, regular ? fmt::format("a file of {} bytes", bytes) : "no regular file");
  }
  ~BodyFile() { ::close(descriptor_); }
  BodyFile(const BodyFile&) = delete;
  BodyFile& operator=(const BodyFile&) = delete;

  uint64_t size() const { return size_; }
  void seek(uint64_t at) { at_ = at; }

  size_t read(char* buffer, size_t room) {
    const size_t wanted = std::min<uint64_t>(room, size_ - std::min(at_, size_));
    if (wanted == 0) return 0;
    const ssize_t got = ::pread(descriptor_, buffer, wanted, static_cast<off_t>(begin_ + at_));
    base::check(got > 0, ErrorKind::internal, "{}: cannot read at byte {}: {}", path_.string(), begin_ + at_,
                got < 0 ? std::strerror(errno) : "it became shorter while it was sent");
    at_ += static_cast<uint64_t>(got);
    return static_cast<size_t>(got);
  }

 private:
  std::filesystem::path path_;
  uint64_t begin_ = 0, size_ = 0, at_ = 0;
  int descriptor_ = -1;
};

/// One exchange with one server. libcurl calls back through the static functions below; exceptions are carried over.
class Exchange {
 public:
  Exchange(const HttpRequest& request, const Hop& hop, const BodySink& sink)
      : request_(request), hop_(hop), sink_(sink), easy_(request.guard != nullptr) {}

  /// `follow`: a redirect's body is thrown away instead of being given to the sink.
  HttpResponse run(bool follow, std::chrono::milliseconds timeout);

 private:
  template <typename Value>
  void set(CURLoption option, Value value) {
    const CURLcode code = curl_easy_setopt(easy_.get(), option, value);
    base::check(code == CURLE_OK, code == CURLE_OUT_OF_MEMORY ? ErrorKind::out_of_memory : ErrorKind::internal,
                "libcurl refuses option {}: {}", static_cast<int>(option), curl_easy_strerror(code));
  }
  void set_connection(std::chrono::milliseconds timeout);
  void set_guard();
  void set_body();
  void set_headers();
  void set_signature();
  void set_callbacks();
  [[noreturn]] void fail_with(CURLcode code) const;

  template <typename Work>
  bool guarded(Work work) noexcept {
    try {
      work();
      return true;
    } catch (...) {
      error_ = std::current_exception();
      return false;
    }
  }
  void take_header(std::string_view line);
  void take_body(std::string_view piece);

  static size_t on_header(char* data, size_t size, size_t count, void* self);
  static size_t on_body(char* data, size_t size, size_t count, void* self);
  static size_t on_read(char* buffer, size_t size, size_t count, void* self);
  static int on_seek(void* self, curl_off_t offset, int origin);
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t upload_total, curl_off_t uploaded);
  static curl_socket_t on_socket(void* self, curlsocktype, curl_sockaddr* address);

  const HttpRequest& request_;
  const Hop& hop_;
  const BodySink& sink_;
  HeaderList headers_{nullptr, curl_slist_free_all}, pins_{nullptr, curl_slist_free_all};
  std::vector<IpAddress> allowed_;
  std::optional<BodyFile> file_;
  HttpResponse answer_;
  uint64_t received_ = 0;
  bool follow_ = false, refused_ = false;
  std::exception_ptr error_;
  std::chrono::steady_clock::time_point reported_{};
  char message_[CURL_ERROR_SIZE] = {};
  EasyLease easy_;  // last: goes before what it points to
};

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

void Exchange::take_header(std::string_view line) {
  while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
  if (line.starts_with("HTTP/")) {  // each interim answer and the final one begin so
    answer_.headers.clear();
    const size_t blank = line.find(' ');
    answer_.status = blank == std::string_view::npos ? 0 : std::atoi(std::string(line.substr(blank + 1, 3)).c_str());
    return;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return;
  base::check(answer_.headers.size() < 200, ErrorKind::bad_input, "{}: the answer has more than 200 header lines",
              shown_url(hop_.url.text));
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  answer_.headers.emplace_back(lower(line.substr(0, colon)), value);
}

void Exchange::take_body(std::string_view piece) {
  received_ += piece.size();
  uint64_t bytes = received_;
  if (const auto length = answer_.header("content-length"))
    bytes = std::max<uint64_t>(bytes, std::strtoull(std::string(*length).c_str(), nullptr, 10));
  base::check(bytes <= request_.max_bytes, ErrorKind::bad_input,
              "{}: the answer has {} bytes or more, at most {} are accepted here", shown_url(hop_.url.text), bytes,
              request_.max_bytes);
  if (follow_ && is_redirect(answer_.status) && answer_.header("location")) return;
  sink_(answer_, piece);
}

size_t Exchange::on_header(char* data, size_t size, size_t count, void* self) {
  auto& exchange = *static_cast<Exchange*>(self);
  return exchange.guarded([&] { exchange.take_header({data, size * count}); }) ? size * count : 0;
}

size_t Exchange::on_body(char* data, size_t size, size_t count, void* self) {
  auto& exchange = *static_cast<Exchange*>(self);
  if (size * count == 0) return 0;
  // Any other number than the one given ends the transfer.
  return exchange.guarded([&] { exchange.take_body({data, size * count}); }) ? size * count : 0;
}

size_t Exchange::on_read(char* buffer, size_t size, size_t count, void* self) {
  auto& exchange = *static_cast<Exchange*>(self);
  size_t got = CURL_READFUNC_ABORT;
  exchange.guarded([&] { got = exchange.file_->read(buffer, size * count); });
  return got;
}

int Exchange::on_seek(void* self, curl_off_t offset, int origin) {
  if (origin != SEEK_SET || offset < 0) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<Exchange*>(self)->file_->seek(static_cast<uint64_t>(offset));
  return CURL_SEEKFUNC_OK;
}

int Exchange::on_progress(void* self, curl_off_t, curl_off_t, curl_off_t upload_total, curl_off_t uploaded) {
  auto& exchange = *static_cast<Exchange*>(self);
  if (exchange.request_.cancel && exchange.request_.cancel->requested()) return 1;
  if (!exchange.request_.on_upload || upload_total <= 0) return 0;
  const auto now = std::chrono::steady_clock::now();
  if (now - exchange.reported_ < std::chrono::milliseconds(100) && uploaded != upload_total) return 0;
  exchange.reported_ = now;
  return exchange.guarded(
             [&] { exchange.request_.on_upload(static_cast<uint64_t>(uploaded), static_cast<uint64_t>(upload_total)); })
             ? 0
             : 1;
}

// The last word, whatever libcurl resolved or remembered: a socket goes to a checked address or nowhere.
curl_socket_t Exchange::on_socket(void* self, curlsocktype, curl_sockaddr* address) {
  auto& exchange = *static_cast<Exchange*>(self);
  char text[INET6_ADDRSTRLEN] = {};
  const void* raw = nullptr;
  if (address->family == AF_INET) raw = &reinterpret_cast<const sockaddr_in*>(&address->addr)->sin_addr;
  if (address->family == AF_INET6) raw = &reinterpret_cast<const sockaddr_in6*>(&address->addr)->sin6_addr;
  const std::optional<IpAddress> wanted =
      raw && inet_ntop(address->family, raw, text, sizeof text) ? IpAddress::parse(text) : std::nullopt;
  const auto& allowed = exchange.allowed_;
  if (!wanted || std::find(allowed.begin(), allowed.end(), *wanted) == allowed.end()) {
    exchange.refused_ = true;
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

void Exchange::set_connection(std::chrono::milliseconds timeout) {
  set(CURLOPT_URL, hop_.url.text.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_ERRORBUFFER, message_);
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request_.connect_timeout.count()));
  if (request_.stall_timeout.count() > 0) {
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(request_.stall_timeout.count()));
  }
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_USERAGENT, "calotype");
  // OpenSSL's own variable, which libcurl does not read: authorities of companies and test servers.
  if (const char* authorities = std::getenv("SSL_CERT_FILE"); authorities && *authorities)
    set(CURLOPT_CAINFO, authorities);
}

void Exchange::set_guard() {
  if (!request_.guard) return;
  const PinnedTarget target = request_.guard->check(hop_.url.text);
  allowed_ = target.addresses;
  std::string pin = fmt::format("{}:{}:", target.host, target.port);
  for (size_t i = 0; i < allowed_.size(); ++i) {
    const bool v4 = allowed_[i].is_v4();
    pin += fmt::format("{}{}{}{}", i ? "," : "", v4 ? "" : "[", allowed_[i].text(), v4 ? "" : "]");
  }
  if (!IpAddress::parse(target.host)) append(pins_, pin);
  set(CURLOPT_RESOLVE, pins_.get());
  set(CURLOPT_PROXY, "");  // a proxy would resolve the name again, unchecked
  set(CURLOPT_FRESH_CONNECT, 1L);
  set(CURLOPT_FORBID_REUSE, 1L);
  set(CURLOPT_OPENSOCKETFUNCTION, &Exchange::on_socket);
  set(CURLOPT_OPENSOCKETDATA, this);
}

void Exchange::set_body() {
  if (hop_.method == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
    return;
  }
  if (hop_.with_body && !request_.body_file.empty()) {
    file_.emplace(request_);
    set(CURLOPT_UPLOAD, 1L);
    set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(file_->size()));
    set(CURLOPT_READFUNCTION, &Exchange::on_read);
    set(CURLOPT_READDATA, this);
    set(CURLOPT_SEEKFUNCTION, &Exchange::on_seek);
    set(CURLOPT_SEEKDATA, this);
  } else if (hop_.with_body && (!request_.body.empty() || (hop_.method != "GET" && hop_.method != "DELETE"))) {
    set(CURLOPT_POSTFIELDS, request_.body.c_str());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size()));
  }
  set(CURLOPT_CUSTOMREQUEST, hop_.method.c_str());
}

/// May a header go to a host that the caller did not name?
bool is_harmless(const std::string& name) {
  return name.starts_with("accept") || name.starts_with("if-") || name == "range" || name == "user-agent" ||
         name == "content-type";
}

void Exchange::set_headers() {
  bool has_type = false;
  for (const auto& [name, value] : request_.headers) {
    const bool clean = is_token(name) && value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos;
    base::check(clean, ErrorKind::bad_input, "a request header {} holds characters that a header must not",
                base::printable(name));
    const std::string plain = lower(name);
    if (hop_.foreign && !is_harmless(plain)) continue;
    if (!hop_.with_body && plain == "content-type") continue;
    has_type = has_type || plain == "content-type";
    append(headers_, value.empty() ? name + ";" : name + ": " + value);
  }
  if (!has_type) append(headers_, "Content-Type:");  // libcurl would call every body a form
  append(headers_, "Expect:");                       // saves a second against servers that do not answer it
  set_signature();
  set(CURLOPT_HTTPHEADER, headers_.get());
}

void Exchange::set_signature() {
  if (!request_.aws || hop_.foreign) return;
  SignedRequest request{.method = hop_.method, .url = hop_.url, .time = std::time(nullptr)};
  if (!file_) request.payload_sha256 = base::sha256_hex(hop_.with_body ? request_.body : "");
  for (const auto& [name, value] : aws_signature(*request_.aws, request, request_.headers))
    append(headers_, name + ": " + value);
}

void Exchange::set_callbacks() {
  set(CURLOPT_HEADERFUNCTION, &Exchange::on_header);
  set(CURLOPT_HEADERDATA, this);
  set(CURLOPT_WRITEFUNCTION, &Exchange::on_body);
  set(CURLOPT_WRITEDATA, this);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &Exchange::on_progress);
  set(CURLOPT_XFERINFODATA, this);
}

void Exchange::fail_with(CURLcode code) const {
  const std::string url = shown_url(hop_.url.text);
  switch (code) {
    case CURLE_ABORTED_BY_CALLBACK: base::fail(ErrorKind::canceled, "canceled");
    case CURLE_OUT_OF_MEMORY: throw std::bad_alloc();
    case CURLE_COULDNT_RESOLVE_HOST:
      base::fail(ErrorKind::not_found, "{}: the host {} is unknown", url, base::printable(hop_.url.host));
    case CURLE_COULDNT_CONNECT:
      base::fail(ErrorKind::not_found, "{}: nobody answers at {}", url, base::printable(hop_.url.authority()));
    case CURLE_OPERATION_TIMEDOUT:
      base::fail(ErrorKind::not_found, "{}: no complete answer in time ({})", url, base::printable(message_));
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      base::fail(ErrorKind::bad_input, "{}: the server's certificate cannot be trusted ({})", url,
                 base::printable(message_));
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: base::fail(ErrorKind::bad_input, "{} is no usable URL", url);
    default:
      base::fail(ErrorKind::not_found, "{}: the connection broke ({}{}{})", url, curl_easy_strerror(code),
                 message_[0] ? "; " : "", base::printable(message_));
  }
}

HttpResponse Exchange::run(bool follow, std::chrono::milliseconds timeout) {
  follow_ = follow;
  answer_.url = hop_.url.text;
  set_connection(timeout);
  set_guard();
  set_body();
  set_headers();
  set_callbacks();
  const CURLcode code = curl_easy_perform(easy_.get());
  if (error_) std::rethrow_exception(error_);
  base::check(!refused_, ErrorKind::bad_input, "{}: the connection would go to an address that was not checked",
              shown_url(hop_.url.text));
  if (code != CURLE_OK) fail_with(code);
  return std::move(answer_);
}

Hop next_hop(const Hop& hop, const HttpResponse& answer) {
  const std::string location(*answer.header("location"));
  Hop next{.url = hop.url.resolve(location), .method = hop.method, .with_body = hop.with_body, .foreign = hop.foreign};
  base::check(hop.url.scheme == "http" || next.url.scheme == "https", ErrorKind::bad_input,
              "{}: redirects from https to http ({}), which is not followed", shown_url(hop.url.text),
              shown_url(location));
  next.foreign = hop.foreign || !next.url.same_origin(hop.url);
  const bool to_get = (answer.status == 303 && hop.method != "HEAD") || (answer.status <= 302 && hop.method == "POST");
  if (to_get) {
    next.method = "GET";
    next.with_body = false;
  }
  return next;
}

}  // namespace

std::optional<std::string_view> HttpResponse::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (key == name) return value;
  return std::nullopt;
}

HttpResponse send(const HttpRequest& request, const BodySink& sink) {
  using Clock = std::chrono::steady_clock;
  base::check(is_token(request.method), ErrorKind::bad_input, "{} is no HTTP method", base::printable(request.method));
  if (request.cancel) request.cancel->throw_if_requested();
  Hop hop{.url = Url::parse(request.url), .method = request.method, .with_body = true};
  const auto begun = Clock::now();
  for (int hops = 0;; ++hops) {
    std::chrono::milliseconds left = request.timeout;
    if (left.count() > 0) {
      left -= std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begun);
      base::check(left.count() > 0, ErrorKind::not_found, "{}: no complete answer in time", shown_url(hop.url.text));
    }
    const bool follow = hops < request.follow_redirects;
    HttpResponse answer = Exchange(request, hop, sink).run(follow, left);
    if (!is_redirect(answer.status) || !answer.header("location") || request.follow_redirects == 0) return answer;
    base::check(follow, ErrorKind::bad_input, "{}: more than {} redirects", shown_url(request.url),
                request.follow_redirects);
    hop = next_hop(hop, answer);
  }
}

HttpResponse send(const HttpRequest& request) {
  std::string body;
  HttpResponse answer = send(request, [&](const HttpResponse&, std::string_view piece) { body.append(piece); });
  answer.body = std::move(body);
  return answer;
}

}  // namespace calotype::hub
