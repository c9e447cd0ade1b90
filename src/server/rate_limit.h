// How often a token may ask: a bucket per token that refills evenly.
//
//   RateLimit limit(6000);                       // a minute; 0: no limit
//   const Allowance now = limit.take("token-1"); // now.granted, now.remaining, now.reset_seconds
//
// Thread-safe.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>

namespace calotype::server {

struct Allowance {
  bool granted = true;
  int64_t remaining = 0;
  int64_t reset_seconds = 0;  ///< until the bucket is full again
  int64_t retry_seconds = 0;  ///< until the next request is granted, where this one was not
};

class RateLimit {
 public:
  explicit RateLimit(int64_t per_minute) : per_minute_(per_minute) {}
  Allowance take(const std::string& who, std::chrono::steady_clock::time_point now = std::chrono::steady_clock::now());

 private:
  struct Bucket {
    double used = 0;
    std::chrono::steady_clock::time_point at;
  };
  int64_t per_minute_;
  std::mutex mutex_;
  std::map<std::string, Bucket> buckets_;
};

}  // namespace calotype::server
