#include "hub/signature.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>

#include "base/base64.h"
#include "base/error.h"

namespace calotype::hub {

using base::ErrorKind;

namespace {

constexpr std::string_view kSecretPrefix = "whsec_";

std::string_view as_text(const Digest& digest) { return {reinterpret_cast<const char*>(digest.data()), digest.size()}; }

}  // namespace

Digest hmac_sha256(std::string_view key, std::string_view message) {
  Digest digest;
  unsigned size = 0;
  // HMAC() takes the key's length as int; a key that long is no key.
  base::check(key.size() <= 1u << 20, ErrorKind::bad_input, "a signing key has {} bytes, expected at most a mebibyte",
              key.size());
  const auto* bytes = reinterpret_cast<const unsigned char*>(message.data());
  const char* key_bytes = key.empty() ? "" : key.data();
  const bool done =
      HMAC(EVP_sha256(), key_bytes, static_cast<int>(key.size()), bytes, message.size(), digest.data(), &size);
  base::check(done && size == digest.size(), ErrorKind::internal, "OpenSSL cannot compute HMAC-SHA256");
  return digest;
}

std::string webhook_signature(std::string_view secret, std::string_view id, int64_t timestamp, std::string_view body) {
  base::check(secret.starts_with(kSecretPrefix), ErrorKind::bad_input, "a webhook secret does not begin with whsec_");
  const std::optional<std::string> key = base::base64_decoded(secret.substr(kSecretPrefix.size()));
  base::check(key && !key->empty(), ErrorKind::bad_input, "a webhook secret is not base64 after whsec_");
  const std::string message = fmt::format("{}.{}.{}", id, timestamp, body);
  return "v1," + base::base64(as_text(hmac_sha256(*key, message)));
}

std::string new_webhook_secret() { return std::string(kSecretPrefix) + base::base64(random_bytes(24)); }

bool constant_time_equal(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string random_bytes(size_t count) {
  base::check(count <= 4096, ErrorKind::internal, "{} random bytes asked for, at most 4096 are given", count);
  std::string bytes(count, '\0');
  const int drawn = RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count));
  base::check(drawn == 1, ErrorKind::internal, "the system gives no random numbers");
  return bytes;
}

std::string random_token(size_t bytes) {
  std::string text = base::base64(random_bytes(bytes));
  text.erase(std::min(text.find('='), text.size()));
  std::replace(text.begin(), text.end(), '+', '-');
  std::replace(text.begin(), text.end(), '/', '_');
  return text;
}

std::string hex(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t byte : bytes) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

}  // namespace calotype::hub
