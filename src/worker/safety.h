// The operator's own judge of pictures: a program or an HTTP endpoint that sees each one before it is stored. Off
// unless configured; a judge that fails lets nothing through.
//
//   if (auto reason = refusal(options, encoded, "image/webp", prompt)) …
//
//   command  run by /bin/sh with the picture's path as its last argument and the prompt in $CALOTYPE_PROMPT; status 0
//   accepts, any
//            other refuses, its first line of output is the reason
//   url      POST of the picture; 200 with {"allowed": true} or {"allowed": false, "reason": "…"}
//
// Thread-safe.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace calotype::worker {

struct SafetyOptions {
  std::string command, url;      ///< "" = none; with both, both must accept
  bool may_be_disabled = false;  ///< honours disable_safety_checker
  std::chrono::milliseconds timeout{30'000};

  bool any() const { return !command.empty() || !url.empty(); }
};

/// Why a picture is refused, or nothing. Error internal when the judge itself fails.
std::optional<std::string> refusal(const SafetyOptions& options, std::string_view picture,
                                   std::string_view content_type, const std::string& prompt);

}  // namespace calotype::worker
