#include "server/http_body.h"

#include <fmt/format.h>

#include <algorithm>

#include "server/problem.h"

namespace calotype::server {
using namespace std::chrono_literals;
using std::chrono::milliseconds;

namespace {

Problem broken(const std::string& what) { return Problem(400, "Broken request body", what); }

}  // namespace

HttpBody::HttpBody(HttpSession& session, Poco::Net::HTTPServerResponseImpl& response, Framing framing,
                   ConnectionWatch::Watched& watched, const HttpLimits& limits)
    : session_(session),
      response_(response),
      framing_(framing),
      watched_(watched),
      limits_(limits),
      start_(std::chrono::steady_clock::now()),
      left_(framing.chunked ? 0 : framing.length),
      finished_(!framing.chunked && framing.length == 0) {}

/// The client has body_pause until its next bytes, and less once it falls behind body_rate.
void HttpBody::made_progress(size_t bytes) {
  received_ += bytes;
  const auto earned = milliseconds(static_cast<int64_t>(received_ * 1000 / std::max<uint64_t>(limits_.body_rate, 1)));
  const auto spent = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start_);
  watched_.allow(std::clamp(limits_.body_pause + earned - spent, milliseconds(1), limits_.body_pause));
}

char HttpBody::next_char() {
  const int c = session_.get();
  if (c == std::char_traits<char>::eof()) throw broken("The connection ended inside the request body.");
  return static_cast<char>(c);
}

/// RFC 9112 §7.1: "1a;name=value\r\n". Extensions are dropped.
uint64_t HttpBody::next_chunk_size() {
  if (!first_chunk_ && (next_char() != '\r' || next_char() != '\n'))
    throw broken("A chunk is longer than its size says.");
  first_chunk_ = false;
  uint64_t size = 0;
  int digits = 0, length = 0;
  char c = next_char();
  for (; std::isxdigit(static_cast<unsigned char>(c)); c = next_char(), ++digits) {
    if (digits == 15) throw broken("A chunk's size has more than 15 digits.");
    size = size * 16 + static_cast<uint64_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  if (digits == 0) throw broken("A chunk begins without a size in hexadecimal digits.");
  for (; c != '\n'; c = next_char())
    if (++length > 1024) throw broken("A chunk's extension is longer than 1024 bytes.");
  return size;
}

/// Trailers are read and dropped.
void HttpBody::end_of_chunks() {
  size_t total = 0;
  for (size_t line = 0;; line = 0) {
    for (char c = next_char(); c != '\n'; c = next_char()) {
      line += c != '\r';
      if (++total > 8192) throw broken("The trailers after the body are longer than 8192 bytes.");
    }
    if (line == 0) return;
  }
}

size_t HttpBody::read_some(char* to, size_t size) {
  if (finished_) return 0;
  reading_ = true;  // and stays so when something below throws
  if (!started_) {
    started_ = true;
    start_ = std::chrono::steady_clock::now();
    made_progress(0);
    if (framing_.expects_continue) response_.sendContinue();
  }
  if (framing_.chunked && left_ == 0) {
    left_ = next_chunk_size();
    if (left_ == 0) {
      end_of_chunks();
      finished_ = true;
      reading_ = false;
      watched_.unlimited();
      return 0;
    }
  }
  if (received_ + left_ > limits_.body_bytes)
    throw Problem(413, "Request too large",
                  fmt::format("Request bodies must be smaller than {} bytes.", limits_.body_bytes));
  const int count = session_.read(to, static_cast<std::streamsize>(std::min<uint64_t>(size, left_)));
  if (count <= 0) throw broken("The connection ended inside the request body.");
  reading_ = false;
  left_ -= static_cast<uint64_t>(count);
  made_progress(static_cast<size_t>(count));
  if (!framing_.chunked && left_ == 0) {
    finished_ = true;
    watched_.unlimited();
  }
  return static_cast<size_t>(count);
}

HttpBody::int_type HttpBody::underflow() {
  const size_t count = read_some(buffer_.data(), buffer_.size());
  if (count == 0) return traits_type::eof();
  setg(buffer_.data(), buffer_.data(), buffer_.data() + count);
  return traits_type::to_int_type(buffer_[0]);
}

/// Large reads go past the small buffer. Fills `to` wholly before the end: std::istream takes less for an end of file.
std::streamsize HttpBody::xsgetn(char* to, std::streamsize count) {
  std::streamsize done = std::min<std::streamsize>(std::max<std::streamsize>(count, 0), egptr() - gptr());
  std::copy_n(gptr(), done, to);
  gbump(static_cast<int>(done));
  while (done < count) {
    const size_t more = read_some(to + done, static_cast<size_t>(count - done));
    if (more == 0) break;
    done += static_cast<std::streamsize>(more);
  }
  return done;
}

bool HttpBody::skip_rest(uint64_t at_most) {
  setg(nullptr, nullptr, nullptr);
  char block[16384];
  uint64_t skipped = 0;
  while (!finished_ && !reading_ && skipped <= at_most) skipped += read_some(block, sizeof block);
  return finished_;
}

}  // namespace calotype::server
