#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace calotype::server {

void Metrics::count(const std::string& method, const std::string& route, int status, double seconds) {
  // Methods come from strangers, too.
  static constexpr std::array<std::string_view, 8> kKnown = {"GET",   "HEAD",   "POST",  "PUT",
                                                             "PATCH", "DELETE", "QUERY", "OPTIONS"};
  const std::string known = std::ranges::find(kKnown, method) != kKnown.end() ? method : "other";
  const std::lock_guard lock(mutex_);
  ++requests_[{known, route, status}];
  Durations& durations = durations_[route];
  ++durations.buckets[static_cast<size_t>(std::ranges::lower_bound(kBounds, seconds) - kBounds.begin())];
  durations.sum += seconds;
}

void Metrics::count_webhook(bool delivered) {
  const std::lock_guard lock(mutex_);
  ++(delivered ? webhooks_delivered_ : webhooks_failed_);
}

std::string Metrics::text() const {
  const std::lock_guard lock(mutex_);
  std::string out =
      "# HELP calotype_http_requests_total Requests answered.\n# TYPE calotype_http_requests_total counter\n";
  for (const auto& [key, count] : requests_)
    out += fmt::format("calotype_http_requests_total{{method=\"{}\",route=\"{}\",status=\"{}\"}} {}\n",
                       std::get<0>(key), std::get<1>(key), std::get<2>(key), count);
  out += "# HELP calotype_http_request_seconds Time to answer.\n# TYPE calotype_http_request_seconds histogram\n";
  for (const auto& [route, durations] : durations_) {
    int64_t total = 0;
    for (size_t i = 0; i < durations.buckets.size(); ++i) {
      total += durations.buckets[i];
      const std::string bound = i < kBounds.size() ? fmt::format("{}", kBounds[i]) : "+Inf";
      out += fmt::format("calotype_http_request_seconds_bucket{{route=\"{}\",le=\"{}\"}} {}\n", route, bound, total);
    }
    out += fmt::format("calotype_http_request_seconds_sum{{route=\"{}\"}} {}\n", route, durations.sum);
    out += fmt::format("calotype_http_request_seconds_count{{route=\"{}\"}} {}\n", route, total);
  }
  out += "# HELP calotype_webhooks_total Webhook deliveries tried.\n# TYPE calotype_webhooks_total counter\n";
  out += fmt::format(
      "calotype_webhooks_total{{result=\"delivered\"}} {}\ncalotype_webhooks_total{{result=\"failed\"}} {}\n",
      webhooks_delivered_, webhooks_failed_);
  return out;
}

}  // namespace calotype::server
