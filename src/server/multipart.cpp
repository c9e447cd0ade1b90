#include "server/multipart.h"

#include <Poco/String.h>

#include <algorithm>
#include <cstring>
#include <streambuf>
#include <vector>

#include "server/http_message.h"
#include "server/problem.h"

namespace calotype::server {

namespace {

constexpr size_t kBlock = 256 << 10;
constexpr size_t kHeaderLimit = 8 << 10;
constexpr int kPartLimit = 64;

Problem broken(const std::string& what) { return Problem(400, "Broken multipart body", what); }

/// `name="va\"lue"` in `form-data; name="…"; filename="…"`. Backslashes before other characters stay: old browsers sent
/// whole Windows paths.
std::string parameter(std::string_view header, std::string_view name) {
  for (size_t at = header.find(';'); at != std::string_view::npos && at < header.size();) {
    at = header.find_first_not_of("; \t", at);
    if (at == std::string_view::npos) break;
    const size_t equals = header.find('=', at);
    if (equals == std::string_view::npos) break;
    const bool wanted = Poco::icompare(std::string(header.substr(at, equals - at)), std::string(name)) == 0;
    std::string value;
    at = equals + 1;
    if (at < header.size() && header[at] == '"') {
      for (++at; at < header.size() && header[at] != '"'; ++at) {
        if (header[at] == '\\' && at + 1 < header.size() && (header[at + 1] == '"' || header[at + 1] == '\\')) ++at;
        value += header[at];
      }
      at = header.find(';', at);
    } else {
      const size_t end = std::min(header.find(';', at), header.size());
      value = Poco::trim(std::string(header.substr(at, end - at)));
      at = end;
    }
    if (wanted) return value;
  }
  return "";
}

}  // namespace

std::string boundary_of(std::string_view content_type) {
  if (Poco::icompare(std::string(content_type.substr(0, 19)), "multipart/form-data") != 0)
    throw broken("Expected Content-Type: multipart/form-data.");
  std::string boundary = parameter(content_type, "boundary");
  if (boundary.empty() || boundary.size() > 200)
    throw broken("The Content-Type has no boundary.");  // RFC 2046 allows 70; some programs do not care
  return boundary;
}

/// The request's bytes with a window that is searched for the boundary.
class MultipartReader::Source {
 public:
  Source(std::istream& in, const std::string& boundary) : in_(in), mark_("\r\n--" + boundary), window_(kBlock) {
    std::memcpy(window_.data(), "\r\n", 2);  // so that the first boundary looks like the others
    end_ = 2;
  }

  /// Bytes in front of the next boundary, some at a time; empty at the boundary, which stays in the window.
  std::string_view take(size_t limit) {
    for (;;) {
      const std::string_view ready(window_.data() + begin_, end_ - begin_);
      const size_t at = ready.find(mark_);
      size_t usable = at;
      // Without a boundary in sight, its beginning may hide in the last bytes.
      if (at == std::string_view::npos) usable = ready.size() >= mark_.size() ? ready.size() - mark_.size() + 1 : 0;
      if (usable > 0) {
        const std::string_view piece = ready.substr(0, std::min(usable, limit));
        begin_ += piece.size();
        return piece;
      }
      if (at == 0) return {};
      fill();
    }
  }

  /// Behind a boundary: true when another part follows.
  bool pass_boundary() {
    while (end_ - begin_ < mark_.size() + 2) fill();
    begin_ += mark_.size();
    if (window_[begin_] == '-' && window_[begin_ + 1] == '-') return false;
    const std::string line = next_line();  // blanks that a transport may have added
    if (line.find_first_not_of(" \t") != std::string::npos) throw broken("A boundary is followed by other text.");
    return true;
  }

  std::string next_line() {
    std::string line;
    for (;;) {
      if (begin_ == end_) fill();
      const char c = window_[begin_++];
      if (c == '\n') break;
      line += c;
      if (line.size() > kHeaderLimit) throw broken("A part's headers are longer than 8 KiB.");
    }
    if (line.ends_with('\r')) line.pop_back();
    return line;
  }

 private:
  void fill() {
    std::memmove(window_.data(), window_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    const std::streamsize count =
        in_.rdbuf()->sgetn(window_.data() + end_, static_cast<std::streamsize>(window_.size() - end_));
    if (count <= 0) throw broken("The body ends before its closing boundary.");
    end_ += static_cast<size_t>(count);
  }

  std::istream& in_;
  std::string mark_;
  std::vector<char> window_;
  size_t begin_ = 0, end_ = 0;
};

class MultipartReader::PartBuffer : public std::streambuf {
 public:
  explicit PartBuffer(Source& source) : source_(source) {}

 protected:
  int_type underflow() override {
    piece_ = source_.take(SIZE_MAX);
    if (piece_.empty()) return traits_type::eof();
    // The window is only read through these pointers.
    char* begin = const_cast<char*>(piece_.data());
    setg(begin, begin, begin + piece_.size());
    return traits_type::to_int_type(*begin);
  }

 private:
  Source& source_;
  std::string_view piece_;
};

MultipartReader::MultipartReader(std::istream& in, const std::string& boundary)
    : source_(std::make_unique<Source>(in, boundary)) {
  while (!source_->take(SIZE_MAX).empty()) {
  }  // a preamble
}

MultipartReader::~MultipartReader() = default;

std::optional<MultipartPart> MultipartReader::next() {
  while (buffer_ && !source_->take(SIZE_MAX).empty()) {
  }
  if (++parts_ > kPartLimit) throw broken("More than 64 parts.");
  if (!source_->pass_boundary()) return std::nullopt;
  MultipartPart part;
  size_t total = 0;
  for (std::string line = source_->next_line(); !line.empty(); line = source_->next_line()) {
    total += line.size();
    if (total > kHeaderLimit) throw broken("A part's headers are longer than 8 KiB.");
    const size_t colon = std::min(line.find(':'), line.size());
    const std::string name = Poco::toLower(line.substr(0, colon)),
                      value = Poco::trim(line.substr(std::min(colon + 1, line.size())));
    if (name == "content-type") part.content_type = value;
    if (name != "content-disposition") continue;
    part.name = parameter(value, "name");
    part.filename = parameter(value, "filename");
    const std::string encoded = parameter(value, "filename*");  // RFC 5987: UTF-8''na%20me
    if (const size_t quotes = encoded.find("''"); quotes != std::string::npos)
      part.filename = percent_decoded(encoded.substr(quotes + 2)).value_or(part.filename);
  }
  buffer_ = std::make_unique<PartBuffer>(*source_);
  stream_ = std::make_unique<std::istream>(buffer_.get());
  stream_->exceptions(std::ios::badbit);
  part.body = stream_.get();
  return part;
}

std::optional<std::string> read_at_most(std::istream& in, size_t most) {
  std::string content;
  char block[64 << 10];
  while (const std::streamsize count = in.rdbuf()->sgetn(block, sizeof block)) {
    content.append(block, static_cast<size_t>(count));
    if (content.size() > most) return std::nullopt;
  }
  return content;
}

std::string field_text(const MultipartPart& part) {
  auto text = read_at_most(*part.body, 64 << 10);
  if (!text) throw Problem(400, "Broken multipart body", "Fields beside the file must be smaller than 64 KiB.");
  return std::move(*text);
}

}  // namespace calotype::server
