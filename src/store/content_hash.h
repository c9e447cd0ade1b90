// SHA-256 and MD5 of one stream in one pass, by OpenSSL: ten times as fast as base/sha256, which matters for uploads of
// gigabytes. MD5 is what clients expect as an etag; nothing is trusted because of it. One thread at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace calotype::store {

class ContentHash {
 public:
  ContentHash();
  ~ContentHash();
  void update(std::string_view bytes);
  /// Hexadecimal; each once, after the last update().
  std::string sha256();
  std::string md5();

 private:
  struct Digest;
  std::unique_ptr<Digest> sha256_, md5_;
};

}  // namespace calotype::store
