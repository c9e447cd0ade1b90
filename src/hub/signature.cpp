#include "hub/signature.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>

#include "base/error.h"

namespace calotype::hub {

using base::ErrorKind;

namespace {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view kSecretPrefix = "whsec_";

int value_of(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

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
  const std::optional<std::string> key = base64_decoded(secret.substr(kSecretPrefix.size()));
  base::check(key && !key->empty(), ErrorKind::bad_input, "a webhook secret is not base64 after whsec_");
  const std::string message = fmt::format("{}.{}.{}", id, timestamp, body);
  return "v1," + base64(as_text(hmac_sha256(*key, message)));
}

std::string new_webhook_secret() { return std::string(kSecretPrefix) + base64(random_bytes(24)); }

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
  std::string text = base64(random_bytes(bytes));
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

std::string base64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += k <= count ? kAlphabet[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::optional<std::string> base64_decoded(std::string_view text) {
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  if (padding && text.size() % 4 != 0) return std::nullopt;
  text.remove_suffix(padding);
  if (text.size() % 4 == 1) return std::nullopt;
  std::string out;
  out.reserve(text.size() / 4 * 3 + 2);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int value = value_of(c);
    if (value < 0) return std::nullopt;
    bits = (bits << 6 | static_cast<uint32_t>(value)) & 0xFFFFFF;
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 0xFF);
  }
  const bool clean = (bits & ((1u << count) - 1)) == 0;  // bits left over must be zero, or one value had many spellings
  return clean ? std::optional(out) : std::nullopt;
}

}  // namespace calotype::hub
