#include "cli/transfer_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "cli/terminal.h"
#include "pipeline/memory_plan.h"

namespace calotype::cli {
namespace {

using Clock = std::chrono::steady_clock;

class TransferPrinter {
 public:
  void operator()(const base::ProgressEvent& event) {
    const Clock::time_point now = Clock::now();
    const bool complete = event.done >= event.total;
    const int64_t tenths = event.total > 0 ? 10 * event.done / event.total : 10;
    if (first_ < 0) first_ = event.done;
    if (complete_ || (on_terminal_ ? now - printed_ < std::chrono::milliseconds(200) && !complete : tenths == tenths_))
      return;
    printed_ = now;
    tenths_ = tenths;
    complete_ = complete;
    const std::string line = fmt::format("{} {} of {}{}{}", event.stage, text(event.done), text(event.total),
                                         pace(event, now), event.note.empty() || complete ? "" : ", " + event.note);
    // What cannot be said must not end the work.
    std::fputs((on_terminal_ ? "\r\x1b[K" + line + (complete ? "\n" : "") : line + "\n").c_str(), stderr);
    std::fflush(stderr);
  }

 private:
  static std::string text(int64_t bytes) { return pipeline::bytes_text(static_cast<uint64_t>(bytes)); }

  std::string pace(const base::ProgressEvent& event, Clock::time_point now) const {
    const double seconds = std::chrono::duration<double>(now - begun_).count();
    const double moved = static_cast<double>(event.done - first_);
    if (seconds < 0.5 || moved <= 0) return "";
    const double left = static_cast<double>(event.total - event.done) * seconds / moved;
    return fmt::format(", {}/s{}", text(static_cast<int64_t>(moved / seconds)),
                       event.done < event.total ? ", " + duration_text(left) + " left" : "");
  }

  bool on_terminal_ = ::isatty(STDERR_FILENO), complete_ = false;
  Clock::time_point begun_ = Clock::now(), printed_{};
  int64_t first_ = -1, tenths_ = -1;
};

}  // namespace

base::Progress transfer_progress() {
  return [printer = std::make_shared<TransferPrinter>()](const base::ProgressEvent& event) { (*printer)(event); };
}

}  // namespace calotype::cli
