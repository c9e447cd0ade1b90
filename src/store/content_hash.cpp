#include "store/content_hash.h"

#include <openssl/evp.h>

#include <array>
#include <span>

#include "base/error.h"
#include "hub/signature.h"

namespace calotype::store {

struct ContentHash::Digest {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{EVP_MD_CTX_new(), &EVP_MD_CTX_free};

  explicit Digest(const EVP_MD* kind) { check(context && EVP_DigestInit_ex(context.get(), kind, nullptr) == 1); }
  void update(std::string_view bytes) { check(EVP_DigestUpdate(context.get(), bytes.data(), bytes.size()) == 1); }
  std::string hex() {
    std::array<uint8_t, EVP_MAX_MD_SIZE> bytes{};
    unsigned size = 0;
    check(EVP_DigestFinal_ex(context.get(), bytes.data(), &size) == 1);
    return hub::hex(std::span(bytes.data(), size));
  }
  static void check(bool ok) { base::check(ok, base::ErrorKind::internal, "OpenSSL computes no digest"); }
};

ContentHash::ContentHash() : sha256_(new Digest(EVP_sha256())), md5_(new Digest(EVP_md5())) {}
ContentHash::~ContentHash() = default;

void ContentHash::update(std::string_view bytes) {
  sha256_->update(bytes);
  md5_->update(bytes);
}

std::string ContentHash::sha256() { return sha256_->hex(); }
std::string ContentHash::md5() { return md5_->hex(); }

}  // namespace calotype::store
