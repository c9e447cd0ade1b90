// Secrets at rest: AES-256-GCM with a key that lies beside the database, not in it.
//
//   const SecretBox box = SecretBox::open("data");           // data/secret.key, made (mode 0600) when missing
//   std::string sealed = box.seal(hf_token, "job/" + id);    // base64 text; another context does not open it
//
// $CALOTYPE_SECRET_KEY (64 hexadecimal digits) replaces the file; workers on several machines need the same key.
// Thread-safe.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace calotype::store {

class SecretBox {
 public:
  static SecretBox open(const std::filesystem::path& data_folder);
  /// `key`: 32 bytes.
  explicit SecretBox(std::string key);

  std::string seal(std::string_view plain, std::string_view context) const;
  /// Error corrupt_file when it was sealed with another key or context, or damaged.
  std::string unseal(std::string_view sealed, std::string_view context) const;

 private:
  std::string key_;
};

}  // namespace calotype::store
