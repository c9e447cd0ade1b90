// API tokens: shown once, kept as SHA-256.
//
//   auto made = tokens.create("laptop");      // made.plain is never seen again
//   auto token = tokens.check(header_value);  // nothing: not valid
//
// Thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/values.h"

namespace calotype::store {

class Database;

struct Token {
  std::string id;    ///< public, for revoke and records
  std::string name;  ///< the user's word for it
  std::string hint;  ///< first characters of the plain text
  Time created_at = 0;
  std::optional<Time> last_used_at;  ///< to the minute
};

struct NewToken {
  Token token;
  std::string plain;
};

class Tokens {
 public:
  explicit Tokens(std::shared_ptr<Database> database);

  NewToken create(const std::string& name);
  /// Compares in constant time. Answers are remembered for two seconds: a revoked token may work that long.
  std::optional<Token> check(std::string_view plain);
  /// Valid ones, oldest first.
  std::vector<Token> list();
  /// By id or by hint; false when there is none.
  bool revoke(const std::string& id);
  bool any();

 private:
  struct Memory;
  std::shared_ptr<Database> database_;
  std::shared_ptr<Memory> memory_;
};

}  // namespace calotype::store
