#include "train/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace calotype::train {
namespace {

// In units of the drawing; the page scales it. 480 is between the width of a phone and half that of a desktop window,
// so that one size of letters serves both.
constexpr double kWidth = 480, kHeight = 240, kLeft = 58, kRight = 456, kTop = 10, kBottom = 204;

/// Adds the later span `b` to `a`.
void merge(CurveSpan& a, const CurveSpan& b) {
  a.last = b.last;
  a.missing += b.missing;
  if (b.count == 0) return;
  a.least = a.count ? std::min(a.least, b.least) : b.least;
  a.greatest = a.count ? std::max(a.greatest, b.greatest) : b.greatest;
  a.count += b.count;
  a.sum += b.sum;
}

struct Axis {
  double low = 0, high = 1, step = 1;  // values at the ends, and between ticks
  int ticks() const { return static_cast<int>(std::lround((high - low) / step)); }
};

/// Ends and ticks at round numbers (1, 2 or 5 times a power of ten), about `wanted` of them.
Axis round_axis(double low, double high, int wanted) {
  if (high - low <= 1e-6 * std::max(std::abs(low), std::abs(high))) {
    const double room = high == 0 ? 1 : 0.05 * std::abs(high);
    high += room;
    if (low != 0) low -= room;
  }
  const double raw = (high - low) / wanted;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double step = power * (raw / power < 1.5 ? 1 : raw / power < 3.5 ? 2 : raw / power < 7.5 ? 5 : 10);
  return {.low = std::floor(low / step + 1e-9) * step, .high = std::ceil(high / step - 1e-9) * step, .step = step};
}

/// A tick's value, with as many digits as tell it from its neighbours; "4e-4" for the very small and large.
std::string tick_label(double value, double step) {
  if (std::abs(value) < 1e-6 * step) return "0";
  const int decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  if (decimals <= 3 && std::abs(value) < 1e5) return fmt::format("{:.{}f}", value, decimals);
  const int exponent = static_cast<int>(std::floor(std::log10(std::abs(value)) + 1e-9));
  return fmt::format("{:.3g}e{}", value / std::pow(10, exponent), exponent);
}

/// 12500 → "12.5k".
std::string step_label(double step) {
  if (step >= 1e6) return fmt::format("{:.4g}M", step / 1e6);
  if (step >= 1e4) return fmt::format("{:.4g}k", step / 1e3);
  return grouped(std::llround(step));
}

struct Plot {
  Axis x, y;
  double cut_above = 0;  // the greatest value, where it lies beyond the axis
  double px(double step) const { return kLeft + (step - x.low) / (x.high - x.low) * (kRight - kLeft); }
  double py(double value) const {
    return std::clamp(kBottom - (value - y.low) / (y.high - y.low) * (kBottom - kTop), kTop, kBottom);
  }
  std::string at(double step, double value) const { return fmt::format("{:.1f},{:.1f} ", px(step), py(value)); }
};

Plot plot_of(const LineChart& chart) {
  std::vector<double> values;
  for (const CurveSpan& span : chart.curve->spans())
    if (span.count) values.insert(values.end(), {span.least, span.greatest});
  if (chart.level) values.push_back(chart.level->value);
  std::ranges::sort(values);
  double low = values.front(), high = values.back();
  Plot plot;
  // One exploding step would press all others flat: spikes are left out when they would take half of the height.
  const double usual = values[(values.size() - 1) * 98 / 100];
  if (chart.smooth && high - low > 2 * (usual - low) && usual > low) {
    plot.cut_above = high;
    high = low + 1.1 * (usual - low);
  }
  if (chart.from_zero || (low > 0 && low < 0.3 * high)) low = std::min(low, 0.0);
  plot.y = round_axis(low, high, 4);
  const auto last = static_cast<double>(std::max<int64_t>(chart.curve->spans().back().last, 1));
  plot.x = {.low = 0, .high = last, .step = std::max(1.0, round_axis(0, last, 5).step)};
  return plot;
}

/// Running mean of the spans with the weights of a bell curve (standard deviation: 1.5 % of the run). A spike counts
/// as much as is shown of it, or its neighbours would be lifted off the drawing too.
std::vector<double> smoothed(const Plot& plot, const std::vector<CurveSpan>& spans) {
  const double deviation = std::max(1e-3, 0.015 * static_cast<double>(spans.back().last - spans.front().first));
  std::vector<double> out;
  for (const CurveSpan& here : spans) {
    double sum = 0, weights = 0;
    for (const CurveSpan& span : spans) {
      const double distance = (span.middle() - here.middle()) / deviation;
      if (span.count == 0 || std::abs(distance) > 4) continue;
      const double weight = std::exp(-0.5 * distance * distance) * static_cast<double>(span.count);
      sum += weight * std::min(span.mean(), plot.y.high);
      weights += weight;
    }
    out.push_back(weights > 0 ? sum / weights : NAN);
  }
  return out;
}

/// "M … L …" through the values, begun anew behind gaps.
std::string line_path(const Plot& plot, const std::vector<CurveSpan>& spans, const std::vector<double>& values) {
  std::string path;
  bool open = false;
  for (size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].count) path += (open ? "L" : "M") + plot.at(spans[i].middle(), values[i]);
    open = spans[i].count > 0;
  }
  return path;
}

/// From least to greatest of each span and on to the next: with one value a span, the plain curve.
std::string range_path(const Plot& plot, const std::vector<CurveSpan>& spans) {
  std::string path;
  bool open = false;
  for (const CurveSpan& span : spans) {
    if (span.count) path += (open ? "L" : "M") + plot.at(span.middle(), span.least);
    if (span.count > 1) path += "L" + plot.at(span.middle(), span.greatest);
    open = span.count > 0;
  }
  return path;
}

std::string axes(const Plot& plot) {
  std::string svg;
  auto out = std::back_inserter(svg);
  for (int i = 0; i <= plot.y.ticks(); ++i) {
    const double value = plot.y.low + i * plot.y.step, y = plot.py(value);
    fmt::format_to(out, "<path class=\"grid\" d=\"M{:.0f},{:.1f}H{:.0f}\"/>", kLeft, y, kRight);
    fmt::format_to(out, "<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", kLeft - 6, y + 4.5,
                   tick_label(value, plot.y.step));
  }
  for (double step = 0; step <= plot.x.high * (1 + 1e-9); step += plot.x.step) {
    fmt::format_to(out, "<path class=\"axis\" d=\"M{0:.1f},{1:.0f}v5\"/>", plot.px(step), kBottom);
    fmt::format_to(out, "<text x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>", plot.px(step), kBottom + 19,
                   step_label(step));
  }
  fmt::format_to(out, "<path class=\"axis\" d=\"M{:.0f},{:.0f}H{:.0f}\"/>", kLeft, kBottom, kRight);
  fmt::format_to(out, "<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"middle\">step</text>", (kLeft + kRight) / 2,
                 kHeight - 2);
  return svg;
}

std::string dots(const Plot& plot, const std::vector<CurveSpan>& spans, bool all) {
  std::string svg;
  for (size_t i = 0; i < spans.size(); ++i) {
    // A value between two gaps has no line to it.
    const bool alone = (i == 0 || !spans[i - 1].count) && (i + 1 == spans.size() || !spans[i + 1].count);
    if (spans[i].count && (all || alone))
      svg += fmt::format("<circle class=\"dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\"/>", plot.px(spans[i].middle()),
                         plot.py(spans[i].mean()));
  }
  return svg;
}

std::string skipped_marks(const Plot& plot, const std::vector<CurveSpan>& spans) {
  std::string path;
  for (const CurveSpan& span : spans)
    if (span.missing) path += fmt::format("M{:.1f},{:.0f}v-9", plot.px(span.middle()), kBottom);
  return path.empty() ? path : "<path class=\"skipped\" d=\"" + path + "\"/>";
}

/// Upright strips over the drawing that show their numbers when pointed at.
std::string tooltips(const Plot& plot, const std::vector<CurveSpan>& spans) {
  constexpr size_t kStrips = 125;
  const size_t together = (spans.size() + kStrips - 1) / kStrips;
  std::string svg;
  double left = kLeft;
  for (size_t i = 0; i < spans.size(); i += together) {
    CurveSpan all = spans[i];
    const size_t end = std::min(i + together, spans.size());
    for (size_t k = i + 1; k < end; ++k) merge(all, spans[k]);
    const double right =
        end < spans.size()
            ? (plot.px(static_cast<double>(all.last)) + plot.px(static_cast<double>(spans[end].first))) / 2
            : kRight;
    std::string text = "step " + grouped(all.first) + (all.first == all.last ? "" : " to " + grouped(all.last));
    if (all.count) text += fmt::format(": {:.4g}", all.mean());
    if (all.count > 1) text += fmt::format(" ({:.4g} to {:.4g})", all.least, all.greatest);
    if (all.missing) text += fmt::format(", {} skipped", all.missing);
    svg += fmt::format(
        "<rect class=\"tip\" x=\"{:.1f}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"{:.0f}\"><title>{}</title></rect>\n",
        left, kTop, std::max(0.1, right - left), kBottom - kTop, text);
    left = right;
  }
  return svg;
}

std::string legend(const LineChart& chart, const Plot& plot) {
  std::string out;
  const auto entry = [&](const char* key, const std::string& text) {
    out += fmt::format("<span><i class=\"{}\"></i>{}</span> ", key, text);
  };
  const auto& spans = chart.curve->spans();
  if (chart.smooth) {
    const bool ranges = std::ranges::any_of(spans, [](const CurveSpan& span) { return span.count > 1; });
    entry("raw", ranges ? "lowest to highest" : "each step");
    entry("line", "running mean");
  }
  if (chart.level) entry("level", chart.level->label);
  if (chart.mark) entry("mark", chart.mark->label);
  if (std::ranges::any_of(spans, [](const CurveSpan& span) { return span.missing > 0; })) entry("skipped", "skipped");
  if (plot.cut_above > plot.y.high) out += fmt::format("<span>spikes cut off, highest {:.4g}</span>", plot.cut_above);
  return out;
}

}  // namespace

void Curve::add(int64_t step, double value) {
  CurveSpan one{.first = step, .last = step, .missing = 1};
  if (std::isfinite(value)) {
    value = std::clamp(value, -1e100, 1e100);  // sums and differences stay finite
    one = {.first = step, .last = step, .count = 1, .sum = value, .least = value, .greatest = value};
  }
  if (!spans_.empty() && step / width_ <= spans_.back().first / width_)
    merge(spans_.back(), one);
  else
    spans_.push_back(one);
  while (spans_.size() > kMaxSpans) {
    width_ *= 2;
    std::vector<CurveSpan> wider;
    for (const CurveSpan& span : spans_) {
      if (!wider.empty() && span.first / width_ == wider.back().first / width_)
        merge(wider.back(), span);
      else
        wider.push_back(span);
    }
    spans_ = std::move(wider);
  }
}

std::optional<double> Curve::median() const {
  std::vector<CurveSpan> sorted;
  std::ranges::copy_if(spans_, std::back_inserter(sorted), [](const CurveSpan& span) { return span.count > 0; });
  std::ranges::sort(sorted, {}, &CurveSpan::mean);
  int64_t left = 0;
  for (const CurveSpan& span : sorted) left += span.count;
  left /= 2;
  for (const CurveSpan& span : sorted)
    if ((left -= span.count) < 0) return span.mean();
  return std::nullopt;
}

std::string line_chart(const LineChart& chart) {
  const std::vector<CurveSpan>& spans = chart.curve->spans();
  std::string out =
      fmt::format("<figure class=\"chart\"><figcaption><b>{}</b> {}</figcaption>\n", chart.title, chart.unit);
  if (std::ranges::none_of(spans, [](const CurveSpan& span) { return span.count > 0; }))
    return out + "<p>no finite values yet</p></figure>\n";
  const Plot plot = plot_of(chart);
  std::vector<double> means;
  for (const CurveSpan& span : spans) means.push_back(span.count ? span.mean() : NAN);

  out += fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{} over steps\">\n", kWidth, kHeight,
                     chart.title);
  out += axes(plot);
  if (chart.level) {
    const double y = plot.py(chart.level->value);
    out += fmt::format("<path class=\"level\" d=\"M{:.0f},{:.1f}H{:.0f}\"/>", kLeft, y, kRight);
  }
  if (chart.smooth) out += "<path class=\"raw\" d=\"" + range_path(plot, spans) + "\"/>\n";
  out += "<path class=\"line\" d=\"" + line_path(plot, spans, chart.smooth ? smoothed(plot, spans) : means) + "\"/>\n";
  out += dots(plot, spans, !chart.smooth && spans.size() <= 40);
  out += skipped_marks(plot, spans);
  if (chart.mark)
    out += fmt::format("<circle class=\"mark\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\"/>",
                       plot.px(static_cast<double>(chart.mark->step)), plot.py(chart.mark->value));
  out += tooltips(plot, spans);
  out += "</svg>\n";
  if (const std::string keys = legend(chart, plot); !keys.empty()) out += "<p class=\"legend\">" + keys + "</p>";
  return out + "</figure>\n";
}

std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > (number < 0 ? 1 : 0); at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

}  // namespace calotype::train
