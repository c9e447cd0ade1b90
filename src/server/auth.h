// Who may ask: tokens, and how often each of them.
//
//   Auth auth(store.tokens, {.fixed_tokens = {"s3cret"}});
//   request.token_id = auth.check(request);         // Problem 401
//
// Without any token, everybody who reaches the server may use it (it then listens on loopback only) and whatever token
// a client shows is accepted: Replicate's clients insist on sending one. Thread-safe.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/http_message.h"

namespace calotype::store {
class Tokens;
}

namespace calotype::server {

struct AuthOptions {
  std::vector<std::string> fixed_tokens;  ///< from the command line or environment, beside the stored ones
  bool always = false;  ///< ask for a token even while none exists: the server is reachable from outside
};

class Auth {
 public:
  Auth(std::shared_ptr<store::Tokens> tokens, AuthOptions options);

  bool required() const;
  /// The id of the request's token, "" when none is needed. Problem 401.
  std::string check(const Request& request) const;

 private:
  std::string id_of(std::string_view plain) const;

  std::shared_ptr<store::Tokens> tokens_;
  AuthOptions options_;
  std::vector<std::string> fixed_hashes_;
  mutable std::mutex mutex_;
  mutable bool any_stored_ = false;
  mutable std::chrono::steady_clock::time_point looked_at_{};
};

/// The secret of "Bearer …", "Token …" (old clients of Replicate) or "x-key: …" (BFL's); "" without one.
std::string_view presented_token(const Request& request);

}  // namespace calotype::server
