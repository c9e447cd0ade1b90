#include "server/auth.h"

#include <Poco/String.h>

#include "base/sha256.h"
#include "hub/signature.h"
#include "server/problem.h"
#include "store/tokens.h"

namespace calotype::server {

Auth::Auth(std::shared_ptr<store::Tokens> tokens, AuthOptions options)
    : tokens_(std::move(tokens)), options_(std::move(options)) {
  for (const std::string& token : options_.fixed_tokens) fixed_hashes_.push_back(base::sha256_hex(token));
}

bool Auth::required() const {
  if (options_.always || !fixed_hashes_.empty()) return true;
  // Asked for each request; a token made a moment ago on the command line counts within a second.
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (now - looked_at_ > std::chrono::seconds(1)) {
    any_stored_ = tokens_->any();
    looked_at_ = now;
  }
  return any_stored_;
}

std::string Auth::id_of(std::string_view plain) const {
  const std::string hash = base::sha256_hex(plain);
  for (size_t i = 0; i < fixed_hashes_.size(); ++i)
    if (hub::constant_time_equal(hash, fixed_hashes_[i])) return "fixed-" + std::to_string(i);
  const auto token = tokens_->check(plain);
  return token ? token->id : "";
}

std::string Auth::check(const Request& request) const {
  if (!required()) return "";
  const std::string_view plain = presented_token(request);
  const std::string id = plain.empty() ? "" : id_of(plain);
  if (!id.empty()) return id;
  Problem problem(
      401, "Unauthenticated",
      plain.empty() ? "You did not pass an authentication token" : "You did not pass a valid authentication token");
  problem.headers.emplace_back("WWW-Authenticate", "Bearer");
  throw problem;
}

std::string_view presented_token(const Request& request) {
  std::string_view value = request.header("authorization");
  const size_t blank = value.find(' ');
  if (blank != std::string_view::npos) {
    const std::string scheme(value.substr(0, blank));
    if (Poco::icompare(scheme, "Bearer") == 0 || Poco::icompare(scheme, "Token") == 0) {
      value.remove_prefix(blank);
      while (value.starts_with(' ')) value.remove_prefix(1);
      return value;
    }
  }
  return request.header("x-key");
}

}  // namespace calotype::server
