#include "server/rate_limit.h"

#include <algorithm>
#include <cmath>

namespace calotype::server {

Allowance RateLimit::take(const std::string& who, std::chrono::steady_clock::time_point now) {
  if (per_minute_ <= 0) return {.granted = true, .remaining = 1'000'000, .reset_seconds = 0, .retry_seconds = 0};
  const double per_second = static_cast<double>(per_minute_) / 60;
  const std::lock_guard lock(mutex_);
  Bucket& bucket = buckets_.try_emplace(who, Bucket{.used = 0, .at = now}).first->second;
  const double passed = std::chrono::duration<double>(now - bucket.at).count();
  bucket.used = std::max(0.0, bucket.used - passed * per_second);
  bucket.at = now;
  Allowance result;
  result.granted = bucket.used + 1 <= static_cast<double>(per_minute_);
  if (result.granted) bucket.used += 1;
  result.remaining = std::max<int64_t>(0, static_cast<int64_t>(static_cast<double>(per_minute_) - bucket.used));
  result.reset_seconds = static_cast<int64_t>(std::ceil(bucket.used / per_second));
  if (!result.granted)
    result.retry_seconds = std::max<int64_t>(
        1, static_cast<int64_t>(std::ceil((bucket.used + 1 - static_cast<double>(per_minute_)) / per_second)));
  return result;
}

}  // namespace calotype::server
