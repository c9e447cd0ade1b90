// Curves over steps with a bounded number of points, and their drawing as SVG for pages without scripts.
//
//   Curve loss;
//   for (…) loss.add(step, value);                       // any number of values, at most 250 spans are kept
//   std::string svg = line_chart({.title = "Loss", .curve = &loss, .smooth = true});
//
// Plain values, pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace calotype::train {

/// What some steps in a row had.
struct CurveSpan {
  int64_t first = 0, last = 0;     ///< steps
  int64_t count = 0, missing = 0;  ///< finite values; others
  double sum = 0, least = 0, greatest = 0;
  double mean() const { return sum / static_cast<double>(count); }
  double middle() const { return 0.5 * static_cast<double>(first + last); }
};

class Curve {
 public:
  static constexpr size_t kMaxSpans = 250;

  /// Steps do not decrease. A value that is not finite is a gap.
  void add(int64_t step, double value);
  /// In the order of steps. A curve of up to kMaxSpans steps has one span for each.
  const std::vector<CurveSpan>& spans() const { return spans_; }
  /// The middle of the spans' means by number of values; absent without finite values.
  std::optional<double> median() const;

 private:
  std::vector<CurveSpan> spans_;
  int64_t width_ = 1;  // steps k·width_ to (k + 1)·width_ − 1 share a span
};

struct ChartMark {
  int64_t step = 0;
  double value = 0;
  std::string label;
};

struct LineChart {
  std::string title;  ///< all texts are plain: the drawing escapes nothing
  std::string unit;   ///< of the values, a few words
  const Curve* curve = nullptr;
  bool smooth = false;             ///< noisy values: all of them faintly, with a line through their running mean
  bool from_zero = false;          ///< the axis of values begins at 0
  std::optional<ChartMark> mark;   ///< one point made conspicuous
  std::optional<ChartMark> level;  ///< a dashed line at this value
};

/// A <figure> with title, legend and <svg>; its colours are CSS classes of the page. Each span tells its numbers when
/// pointed at. Spikes far above all other values are cut off, which the legend then says.
std::string line_chart(const LineChart& chart);

/// 1234567 → "1,234,567".
std::string grouped(int64_t number);

}  // namespace calotype::train
