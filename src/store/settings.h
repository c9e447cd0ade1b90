// Settings that belong to the installation, not to a process: the webhook secret, the key that signs download links,
// the user's name. All processes on a database see the same values; secret ones are kept encrypted.
//
// Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "store/secret_box.h"

namespace calotype::store {

class Database;

class Settings {
 public:
  Settings(std::shared_ptr<Database> database, SecretBox secrets);

  std::optional<std::string> get(const std::string& name);
  void set(const std::string& name, const std::string& value);

  /// "whsec_" and 24 random bytes in base64; made at the first call.
  std::string webhook_secret();
  /// 32 random bytes for HMACs of our own; made at the first call.
  std::string signing_key();
  /// Owner of what is made here; "me" until set_username().
  std::string username();
  void set_username(const std::string& name);

 private:
  std::string secret(const std::string& name, const std::function<std::string()>& make);

  std::shared_ptr<Database> database_;
  SecretBox secrets_;
};

}  // namespace calotype::store
