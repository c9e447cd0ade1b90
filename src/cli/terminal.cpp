#include "cli/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>

namespace calotype::cli {
namespace {

using Clock = std::chrono::steady_clock;

/// What cannot be said (a closed stderr) must not end the work: unlike fmt::print, this never throws.
void say(const std::string& text) {
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

class ProgressPrinter {
 public:
  void operator()(const base::ProgressEvent& event) {
    if (event.stage != stage_ || event.done == 0) begin(event);
    const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
    if (on_terminal_)
      draw_bar(event, elapsed);
    else if (event.done > 0)
      print_line(event, elapsed);
  }

 private:
  void begin(const base::ProgressEvent& event) {
    stage_ = event.stage;
    start_ = Clock::now();
    first_ = std::max<int64_t>(0, event.done - 1);  // a resumed run does not begin at 0
    printed_tenths_ = 0;
  }

  std::string pace(const base::ProgressEvent& event, double elapsed) const {
    if (event.done == 0) return "";
    if (event.total <= 0 || event.done == event.total) return duration_text(elapsed);
    const double each = elapsed / static_cast<double>(event.done - first_);
    return fmt::format("{:.2f} s/step, {} left", each,
                       duration_text(each * static_cast<double>(event.total - event.done)));
  }

  static std::string counted(const base::ProgressEvent& event) {
    return event.total > 0 ? fmt::format("{}/{}", event.done, event.total) : fmt::format("{}", event.done);
  }

  static std::string noted(const base::ProgressEvent& event) { return event.note.empty() ? "" : ", " + event.note; }

  void draw_bar(const base::ProgressEvent& event, double elapsed) {
    constexpr int64_t kWidth = 24;
    const int64_t filled = event.total ? kWidth * event.done / event.total : 0;
    std::string bar;
    for (int64_t i = 0; i < kWidth; ++i) bar += i < filled ? "█" : "░";
    const char* end = event.total > 0 && event.done == event.total ? "\n" : "";
    say(fmt::format("\r\x1b[K{:8} {} {}  {}{}{}", stage_, bar, counted(event), pace(event, elapsed), noted(event),
                    end));
  }

  void print_line(const base::ProgressEvent& event, double elapsed) {
    if (event.total <= 0) return;  // a tenth of what?
    const int64_t tenths = 10 * event.done / event.total;
    if (tenths == printed_tenths_ && event.done < event.total) return;
    printed_tenths_ = tenths;
    say(fmt::format("{} {} {}{}\n", stage_, counted(event), pace(event, elapsed), noted(event)));
  }

  bool on_terminal_ = ::isatty(STDERR_FILENO);
  std::string stage_;
  Clock::time_point start_ = Clock::now();
  int64_t first_ = 0, printed_tenths_ = 0;
};

extern "C" void on_interrupt(int signal) {
  base::CancelToken& token = interrupt_token();
  if (token.requested()) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  token.request();
}

}  // namespace

base::Progress terminal_progress() {
  return [printer = std::make_shared<ProgressPrinter>()](const base::ProgressEvent& event) { (*printer)(event); };
}

base::CancelToken& interrupt_token() {
  static base::CancelToken token;
  static const bool installed = [] {
    std::signal(SIGINT, on_interrupt);
    std::signal(SIGTERM, on_interrupt);
    return true;
  }();
  (void)installed;
  return token;
}

void print_error(std::string_view text) { say(fmt::format("error: {}\n", text)); }
void print_warning(std::string_view text) { say(fmt::format("warning: {}\n", text)); }
void print_note(std::string_view text) { say(fmt::format("{}\n", text)); }

std::string duration_text(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole >= 3600) return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
  if (whole >= 60) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return seconds < 10 ? fmt::format("{:.1f} s", seconds) : fmt::format("{} s", whole);
}

}  // namespace calotype::cli
