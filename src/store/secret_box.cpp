#include "store/secret_box.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/atomic_file.h"
#include "base/base64.h"
#include "base/error.h"
#include "hub/signature.h"

namespace calotype::store {
namespace fs = std::filesystem;
using base::ErrorKind;
namespace {

constexpr size_t kKeyBytes = 32, kNonceBytes = 12, kTagBytes = 16;

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }
unsigned char* bytes_of(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

std::string from_hex(std::string_view digits, std::string_view source) {
  while (!digits.empty() && (digits.back() == '\n' || digits.back() == '\r')) digits.remove_suffix(1);
  std::string bytes;
  for (size_t i = 0; i + 2 <= digits.size(); i += 2) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(digits.data() + i, digits.data() + i + 2, value, 16);
    if (error != std::errc() || end != digits.data() + i + 2) break;
    bytes += static_cast<char>(value);
  }
  base::check(digits.size() == 2 * kKeyBytes && bytes.size() == kKeyBytes, ErrorKind::bad_input,
              "{}: expected a key of 64 hexadecimal digits", source);
  return bytes;
}

// The key gets its name by link(), which fails when another process was faster: both then use that one's key.
void make_key_file(const fs::path& path) {
  std::string temporary = path.string() + ".partial-XXXXXX";
  const int descriptor = ::mkostemp(temporary.data(), O_CLOEXEC);  // mode 0600
  base::check(descriptor >= 0, ErrorKind::bad_input, "{}: cannot create the key file: {}", path.string(),
              std::strerror(errno));
  const std::string key = hub::random_bytes(kKeyBytes);
  const std::string text = hub::hex(std::span(bytes_of(key), key.size())) + "\n";
  const bool written =
      ::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(descriptor) == 0;
  ::close(descriptor);
  const bool linked = written && (::link(temporary.c_str(), path.c_str()) == 0 || errno == EEXIST);
  const int error = errno;
  ::unlink(temporary.c_str());
  base::check(linked, error == ENOSPC ? ErrorKind::disk_full : ErrorKind::bad_input,
              "{}: cannot write the key file: {}", path.string(), std::strerror(error));
}

using Cipher = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

}  // namespace

SecretBox::SecretBox(std::string key) : key_(std::move(key)) {
  base::check(key_.size() == kKeyBytes, ErrorKind::internal, "a secret key has {} bytes, expected {}", key_.size(),
              kKeyBytes);
}

SecretBox SecretBox::open(const fs::path& data_folder) {
  if (const char* key = std::getenv("CALOTYPE_SECRET_KEY")) return SecretBox(from_hex(key, "CALOTYPE_SECRET_KEY"));
  const fs::path path = data_folder / "secret.key";
  fs::create_directories(data_folder);
  if (!fs::exists(path)) make_key_file(path);
  return SecretBox(from_hex(base::read_file(path, 4096), path.string()));
}

std::string SecretBox::seal(std::string_view plain, std::string_view context) const {
  const std::string nonce = hub::random_bytes(kNonceBytes);
  std::string body(plain.size(), '\0'), tag(kTagBytes, '\0');
  Cipher cipher(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
  int length = 0;
  const bool ok =
      cipher && EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, bytes_of(key_), bytes_of(nonce)) == 1 &&
      EVP_EncryptUpdate(cipher.get(), nullptr, &length, bytes_of(context), static_cast<int>(context.size())) == 1 &&
      EVP_EncryptUpdate(cipher.get(), bytes_of(body), &length, bytes_of(plain), static_cast<int>(plain.size())) == 1 &&
      EVP_EncryptFinal_ex(cipher.get(), bytes_of(body) + length, &length) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, tag.data()) == 1;
  base::check(ok, ErrorKind::internal, "a secret cannot be encrypted");
  return base::base64(nonce + tag + body);
}

std::string SecretBox::unseal(std::string_view sealed, std::string_view context) const {
  std::string bytes = base::base64_decoded(sealed).value_or("");
  base::check(bytes.size() >= kNonceBytes + kTagBytes, ErrorKind::corrupt_file, "a stored secret is damaged");
  std::string tag = bytes.substr(kNonceBytes, kTagBytes);
  const std::string nonce = bytes.substr(0, kNonceBytes), body = bytes.substr(kNonceBytes + kTagBytes);
  std::string plain(body.size(), '\0');
  Cipher cipher(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
  int length = 0;
  const bool ok =
      cipher && EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, bytes_of(key_), bytes_of(nonce)) == 1 &&
      EVP_DecryptUpdate(cipher.get(), nullptr, &length, bytes_of(context), static_cast<int>(context.size())) == 1 &&
      EVP_DecryptUpdate(cipher.get(), bytes_of(plain), &length, bytes_of(body), static_cast<int>(body.size())) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
      EVP_DecryptFinal_ex(cipher.get(), bytes_of(plain) + length, &length) == 1;
  base::check(ok, ErrorKind::corrupt_file,
              "a stored secret was encrypted with another key; restore secret.key or CALOTYPE_SECRET_KEY");
  return plain;
}

}  // namespace calotype::store
