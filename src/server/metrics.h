// Counters of this process and gauges of the store in Prometheus' text format.
//
//   metrics.count("GET", "/predictions/{id}", 200, 0.003);
//
// Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

namespace calotype::server {

class Metrics {
 public:
  /// `route` is the pattern, never the path: paths of strangers would fill memory and dashboards.
  void count(const std::string& method, const std::string& route, int status, double seconds);
  void count_webhook(bool delivered);
  /// The counters, one line each.
  std::string text() const;

 private:
  static constexpr std::array<double, 8> kBounds = {0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60};
  struct Durations {
    std::array<int64_t, kBounds.size() + 1> buckets{};
    double sum = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::tuple<std::string, std::string, int>, int64_t> requests_;
  std::map<std::string, Durations> durations_;
  int64_t webhooks_delivered_ = 0, webhooks_failed_ = 0;
};

}  // namespace calotype::server
