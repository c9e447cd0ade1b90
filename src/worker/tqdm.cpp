#include "worker/tqdm.h"

#include <fmt/format.h>

#include <algorithm>

namespace calotype::worker {
namespace {

constexpr int kBarWidth = 10;

std::string interval(double seconds) {
  const auto all = static_cast<int64_t>(seconds);
  const int64_t hours = all / 3600, minutes = all / 60 % 60;
  return hours ? fmt::format("{}:{:02}:{:02}", hours, minutes, all % 60)
               : fmt::format("{:02}:{:02}", minutes, all % 60);
}

std::string bar(double share) {
  constexpr const char* kEighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = static_cast<int>(share * kBarWidth * 8);
  std::string out;
  for (int i = 0; i < kBarWidth; ++i) {
    const int rest = std::clamp(eighths - 8 * i, 0, 8);
    out += rest == 8 ? "█" : kEighths[rest];
  }
  return out;
}

std::string rate_text(double rate) {
  if (rate <= 0) return "?it/s";
  return rate < 1 ? fmt::format("{:5.2f}s/it", 1 / rate) : fmt::format("{:5.2f}it/s", rate);
}

}  // namespace

std::string tqdm_line(int64_t done, int64_t total, double elapsed, const std::string& postfix, int64_t initial) {
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const double rate = elapsed > 0 ? static_cast<double>(done - initial) / elapsed : 0;
  const std::string left = rate > 0 ? interval(static_cast<double>(total - done) / rate) : "?";
  return fmt::format("{:3.0f}%|{}| {}/{} [{}<{}, {}{}{}]", share * 100, bar(share), done, total, interval(elapsed),
                     left, rate_text(rate), postfix.empty() ? "" : ", ", postfix);
}

}  // namespace calotype::worker
