// multipart/form-data (RFC 7578), part by part, in constant memory: a file goes from the socket to the disk.
//
//   MultipartReader reader(*request.body, boundary_of(request.header("content-type")));
//   while (auto part = reader.next()) files.put({.name = part->filename}, *part->body);
//
// Problem 400 for what is not multipart, and for a body that ends before its closing boundary. One thread at a time.
#pragma once

#include <istream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace calotype::server {

struct MultipartPart {
  std::string name, filename, content_type;
  std::istream* body = nullptr;  ///< valid until the next call of next(); what is left of it is skipped then
};

/// Problem 400 for another content type or a boundary that is none.
std::string boundary_of(std::string_view content_type);

class MultipartReader {
 public:
  MultipartReader(std::istream& in, const std::string& boundary);
  ~MultipartReader();
  /// Nothing after the last part.
  std::optional<MultipartPart> next();

 private:
  class Source;
  class PartBuffer;
  std::unique_ptr<Source> source_;
  std::unique_ptr<PartBuffer> buffer_;
  std::unique_ptr<std::istream> stream_;
  int parts_ = 0;
};

/// The rest of a stream; nothing when it has more bytes than `most`.
std::optional<std::string> read_at_most(std::istream& in, size_t most);
/// What was typed into a field. Problem 400 from 64 KiB on.
std::string field_text(const MultipartPart& part);

}  // namespace calotype::server
