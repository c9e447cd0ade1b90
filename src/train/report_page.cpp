#include "train/report_page.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "base/base64.h"
#include "base/utf8.h"

namespace calotype::train {
namespace {

using nlohmann::json;

// The policy keeps the page from ever loading anything, whatever should get past the escaping.
constexpr std::string_view kHead = R"(<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"/>
<style>
:root { --back: #fbfaf8; --card: #fff; --text: #24211e; --soft: #6b655e; --rule: #e2ddd6; --line: #8a4b14;
  --raw: #e3c29c; --mark: #14667a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --back: #191715; --card: #221f1c; --text: #ece7e1; --soft: #a79f96; --rule: #3a3530; --line: #f0a860;
    --raw: #6d4f30; --mark: #6cc5d9; --bad: #ff8a80; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px 16px 48px; background: var(--back); color: var(--text);
  font: 16px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 4px; } h2 { font-size: 1.15rem; margin: 32px 0 10px; }
.under { color: var(--soft); margin: 0 0 18px; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 10px; margin: 0; }
.numbers div, .chart { background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 10px 12px; }
.numbers dt { color: var(--soft); font-size: .85rem; }
.numbers dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.numbers small { display: block; font-size: .8rem; color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(360px, 100%), 1fr)); gap: 14px; }
figure { margin: 0; } figcaption { font-size: .9rem; color: var(--soft); } figcaption b { color: var(--text); }
svg { display: block; width: 100%; height: auto; margin-top: 6px; }
svg text { font: 13px system-ui, sans-serif; fill: var(--soft); }
@media (max-width: 600px) { svg text { font-size: 16px; } .numbers { grid-template-columns: 1fr 1fr; } }
.grid, .axis { stroke: var(--rule); } .axis { stroke: var(--soft); }
.line, .raw, .level, .skipped { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
.raw { stroke: var(--raw); stroke-width: 1; } .level { stroke: var(--soft); stroke-dasharray: 5 4; stroke-width: 1.5; }
.skipped { stroke: var(--bad); } .dot { fill: var(--line); }
circle.mark { fill: var(--card); stroke: var(--mark); stroke-width: 2.5; }
.tip { fill: var(--text); opacity: 0; } .tip:hover { opacity: .12; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 4px 0 0; font-size: .85rem; color: var(--soft); }
.legend i { display: inline-block; width: 18px; border-top: 3px solid var(--line); vertical-align: middle;
  margin-right: 6px; }
.legend i.raw { border-color: var(--raw); } .legend i.level { border-top: 2px dashed var(--soft); }
.legend i.skipped { border: 0; width: 3px; height: 12px; background: var(--bad); }
.legend i.mark { width: 11px; height: 11px; border: 2.5px solid var(--mark); border-radius: 50%; }
.prompt { margin: 18px 0 6px; }
.row { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(118px, 256px); gap: 8px; overflow-x: auto; }
.row img { display: block; width: 100%; border-radius: 6px; cursor: zoom-in; }
.row img:focus { position: fixed; inset: 0; margin: auto; width: auto; min-width: min(92vw, 92vh); max-width: 96vw;
  max-height: 96vh; z-index: 1; cursor: default; outline: 0; box-shadow: 0 0 0 100vmax #000c; object-fit: contain; }
.row figcaption { text-align: center; }
table { border-collapse: collapse; font-size: .95rem; }
th { text-align: left; font-weight: normal; color: var(--soft); padding: 3px 22px 3px 0; vertical-align: top; }
td { padding: 3px 0; } tr { border-bottom: 1px solid var(--rule); }
.columns { columns: 2 320px; } .columns tr { break-inside: avoid; } .columns table { width: 100%; }
</style>
)";

std::optional<double> number(const json& about, const char* key) {
  const auto found = about.find(key);
  if (found == about.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::optional<int64_t> whole_number(const json& about, const char* key) {
  const auto value = number(about, key);
  if (!value || !(std::abs(*value) < 1e15)) return std::nullopt;
  return static_cast<int64_t>(*value);
}

std::string duration(double seconds) {
  if (seconds < 1) return fmt::format("{:.0f} ms", seconds * 1e3);
  if (seconds < 100) return fmt::format("{:.3g} s", seconds);
  const auto minutes = static_cast<int64_t>(std::min(seconds, 1e12) / 60 + 0.5);
  if (minutes < 60) return fmt::format("{} min", minutes);
  if (minutes < 48 * 60) return fmt::format("{} h {} min", minutes / 60, minutes % 60);
  return fmt::format("{} days {} h", minutes / (24 * 60), minutes / 60 % 24);
}

/// A setting in words; text stays foreign and is escaped by the caller.
std::string setting_text(const std::string& key, const json& value) {
  constexpr std::array kModes = {"lora", "full", "autoencoder"};
  if (key == "mode" && value.is_number_integer() && value >= 0 && value < kModes.size())
    return kModes[value.get<size_t>()];
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) return value.get_ref<const std::string&>().empty() ? "–" : value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{:.6g}", value.get<double>());
  if (value.is_array() && !value.empty()) {
    std::string out;
    for (const json& part : value) out += (out.empty() ? "" : ", ") + setting_text("", part);
    return out;
  }
  return value.is_null() || value.empty() ? "–" : value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string settings_table(const json& about) {
  const auto settings = about.find("settings");
  if (settings == about.end() || !settings->is_object() || settings->empty()) return "";
  std::string out = "<h2>Settings</h2>\n<div class=\"columns\"><table><tbody>\n";
  for (const auto& [key, value] : settings->items())
    out += fmt::format("<tr><th scope=\"row\">{}</th><td><bdi>{}</bdi></td></tr>\n", html_escaped(key),
                       html_escaped(setting_text(key, value)));
  return out + "</tbody></table></div>\n";
}

std::string key_number(std::string_view name, std::string_view value, std::string_view below = "") {
  return fmt::format("<div><dt>{}</dt><dd>{}{}</dd></div>\n", name, value,
                     below.empty() ? "" : fmt::format("<small>{}</small>", below));
}

/// "12 % less than before training": how far a loss has come.
std::string compared(double loss, const std::optional<Validation>& base) {
  if (!base || base->loss <= 0) return "";
  const double percent = 100 * (loss / base->loss - 1);
  if (std::abs(percent) < 0.05) return "as before training";
  return fmt::format("{:.1f} % {} than before training ({:.4g})", std::abs(percent), percent < 0 ? "less" : "more",
                     base->loss);
}

std::string key_numbers(const Report& report) {
  std::string out = "<dl class=\"numbers\">\n";
  const auto steps = whole_number(report.about, "steps"), total = whole_number(report.about, "total_steps");
  const auto per_step = report.seconds.median();
  if (steps) {
    std::string below;
    if (total && *total > *steps) {
      below = "of " + grouped(*total);
      if (per_step) below += ", about " + duration(*per_step * static_cast<double>(*total - *steps)) + " to go";
    }
    out += key_number("Steps", grouped(*steps), below);
  }
  if (const auto loss = number(report.about, "loss"))
    out += key_number("Loss", fmt::format("{:.4g}", *loss), "running mean");
  if (report.latest)
    out += key_number("Validation loss", fmt::format("{:.4g}", report.latest->loss),
                      report.latest->step == 0 ? "before training" : compared(report.latest->loss, report.base));
  if (report.best && report.latest && report.latest->step > 0)
    out += key_number("Best step", report.best->step == 0 ? "none" : grouped(report.best->step),
                      report.best->step == 0 ? "no step is better than the base model"
                                             : fmt::format("validation loss {:.4g}", report.best->loss));
  if (per_step) out += key_number("Time per step", duration(*per_step), "all steps: " + duration(report.total_seconds));
  if (const auto skipped = whole_number(report.about, "skipped_steps"))
    out += key_number("Skipped steps", grouped(*skipped), *skipped ? "loss or gradient not finite" : "");
  if (const auto memory = number(report.about, "peak_memory"); memory && *memory > 0)
    out += key_number("Peak memory", fmt::format("{:.3g} GiB", *memory / (1 << 30)));
  return out + "</dl>\n";
}

std::string charts(const Report& report) {
  std::string out;
  if (!report.loss.spans().empty())
    out += line_chart({.title = "Loss", .unit = "of the training batches", .curve = &report.loss, .smooth = true});
  if (!report.validation.spans().empty()) {
    LineChart chart{
        .title = "Validation loss", .unit = "pictures that are not trained on", .curve = &report.validation};
    if (report.base) chart.level = ChartMark{.value = report.base->loss, .label = "before training"};
    if (report.best && report.best->step > 0)
      chart.mark = ChartMark{report.best->step, report.best->loss, "best: step " + grouped(report.best->step)};
    out += line_chart(chart);
  }
  if (!report.rate.spans().empty())
    out += line_chart({.title = "Learning rate", .curve = &report.rate, .from_zero = true});
  if (!report.gradient.spans().empty())
    out += line_chart({.title = "Gradient norm",
                       .unit = "before clipping",
                       .curve = &report.gradient,
                       .smooth = true,
                       .from_zero = true});
  return out.empty() ? "" : "<h2>Curves</h2>\n<div class=\"charts\">\n" + out + "</div>\n";
}

std::string previews(const Report& report) {
  if (report.previews.empty()) return "";
  std::string out = "<h2>Previews</h2>\n<p class=\"under\">Click on a picture to see it large.";
  if (report.pictures_left_out)
    out += fmt::format(" {} more {} in the folder previews.", grouped(static_cast<int64_t>(report.pictures_left_out)),
                       report.pictures_left_out == 1 ? "lies" : "lie");
  out += "</p>\n";
  for (const ReportRow& row : report.previews) {
    const std::string prompt = row.prompt.empty() ? "(empty prompt)" : html_escaped(row.prompt);
    out += fmt::format("<p class=\"prompt\" dir=\"auto\">{}</p>\n<div class=\"row\">\n", prompt);
    for (const ReportPicture& picture : row.pictures)
      out += fmt::format(
          "<figure><img tabindex=\"0\" alt=\"{} at step {}\" src=\"data:image/webp;base64,{}\"/>"
          "<figcaption>step {}</figcaption></figure>\n",
          prompt, picture.step, base::base64(picture.webp), grouped(picture.step));
    out += "</div>\n";
  }
  return out;
}

}  // namespace

std::string html_escaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const base::Utf8Char c = base::decode_utf8(text, i);
    i += c.length;
    const bool allowed = c.valid && (c.code >= 0x20 || c.code == '\t' || c.code == '\n' || c.code == '\r') &&
                         c.code != 0xFFFE && c.code != 0xFFFF;
    switch (allowed ? c.code : 0xFFFD) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: base::append_utf8(out, allowed ? c.code : 0xFFFD);
    }
  }
  return out;
}

std::string report_page(const Report& report) {
  std::string trigger;
  if (const auto settings = report.about.find("settings"); settings != report.about.end() && settings->is_object()) {
    const auto word = settings->find("trigger");
    if (word != settings->end() && word->is_string()) trigger = word->get<std::string>();
  }
  const std::string& title = report.name.empty() ? trigger : report.name;
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n";
  out += kHead;
  out +=
      fmt::format("<title>{} – training report</title>\n</head>\n<body>\n<h1><bdi>{}</bdi></h1>\n<p class=\"under\">",
                  html_escaped(title), html_escaped(title));
  out += trigger.empty() ? "Training report" : "Training report, trigger word <bdi>" + html_escaped(trigger) + "</bdi>";
  out += "</p>\n";
  out += key_numbers(report);
  out += charts(report);
  out += previews(report);
  out += settings_table(report.about);
  return out + "</body>\n</html>\n";
}

}  // namespace calotype::train
