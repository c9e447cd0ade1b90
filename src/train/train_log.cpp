#include "train/train_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"
#include "image/image_codec.h"
#include "train/report_page.h"

namespace calotype::train {
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr size_t kColumns = 8;
constexpr uint64_t kPictureBytes = 4'500'000;  // of a report; base64 makes 6 MB of them

/// The step of a whole line; nothing for what a killed process or a full disk has left of one.
std::optional<int64_t> step_of(const json& line) {
  if (!line.is_object()) return std::nullopt;
  const auto step = line.find("step");
  if (step == line.end() || !step->is_number_integer()) return std::nullopt;
  return step->get<int64_t>();
}

/// Bytes at the beginning of a log that hold the lines up to `step`.
uint64_t bytes_up_to(const fs::path& path, int64_t step) {
  std::ifstream in(path, std::ios::binary);
  uint64_t at = 0, kept = 0;
  for (std::string text; std::getline(in, text) && !in.eof();) {  // eof: the last line has no end
    at += text.size() + 1;
    const auto line_step = step_of(json::parse(text, nullptr, false));
    if (line_step && *line_step > step) break;
    if (line_step) kept = at;
  }
  return kept;
}

/// Removes previews of later steps, and files that a killed process was writing.
void drop_previews_after(const fs::path& folder, int64_t step) {
  constexpr std::string_view kPrefix = "step-";
  std::error_code ignored;
  std::vector<fs::path> later;
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    int64_t of = 0;
    if (!name.starts_with(kPrefix)) continue;
    if (std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), of).ec != std::errc()) continue;
    if (of > step || step == 0 || !name.ends_with(".webp")) later.push_back(it->path());
  }
  for (const fs::path& path : later) fs::remove(path, ignored);
}

double number_or_gap(const json& value) { return value.is_number() ? value.get<double>() : NAN; }

struct PreviewFile {
  fs::path path;
  uint64_t bytes = 0;
};
using PreviewRows = std::map<std::pair<int64_t, std::string>, std::map<int64_t, PreviewFile>>;  // number, prompt; step

void add_line(Report& report, int64_t step, const json& line) {
  if (const auto loss = line.find("loss"); loss != line.end()) report.loss.add(step, number_or_gap(*loss));
  if (const auto rate = line.find("lr"); rate != line.end()) report.rate.add(step, number_or_gap(*rate));
  if (const auto norm = line.find("grad_norm"); norm != line.end()) report.gradient.add(step, number_or_gap(*norm));
  if (const auto seconds = line.find("seconds"); seconds != line.end() && seconds->is_number()) {
    report.seconds.add(step, seconds->get<double>());
    report.total_seconds += seconds->get<double>();
  }
  if (const auto loss = line.find("validation_loss"); loss != line.end()) {
    const Validation now{.step = step, .loss = number_or_gap(*loss)};
    report.validation.add(step, now.loss);
    if (std::isfinite(now.loss)) {
      if (step == 0) report.base = now;
      if (!report.best || now.loss < report.best->loss) report.best = now;
      report.latest = now;
    }
  }
}

/// The names of files come from numbers, never from the log's text: a report embeds nothing but previews.
fs::path preview_path(const fs::path& folder, int64_t step, int64_t number) {
  return folder / "previews" / fmt::format("step-{:06}-{}.webp", step, number);
}

void add_preview(PreviewRows& rows, const fs::path& folder, int64_t step, const json& line) {
  const auto number = line.find("preview"), prompt = line.find("prompt");
  if (number == line.end() || prompt == line.end() || !number->is_number_integer() || !prompt->is_string()) return;
  std::error_code missing;
  const fs::path path = preview_path(folder, step, number->get<int64_t>());
  const uint64_t bytes = fs::file_size(path, missing);
  if (!missing) rows[{number->get<int64_t>(), prompt->get<std::string>()}][step] = {path, bytes};
}

/// `count` of the steps at even distances, the last and (from two on) the first among them.
std::set<int64_t> evenly(const std::set<int64_t>& steps, size_t count) {
  const std::vector<int64_t> all(steps.begin(), steps.end());
  if (count >= all.size()) return steps;
  if (count == 1) return {all.back()};
  std::set<int64_t> out;
  for (size_t i = 0; i < count; ++i) out.insert(all[(i * (all.size() - 1) + (count - 1) / 2) / (count - 1)]);
  return out;
}

/// Up to kColumns steps, fewer where the pictures would exceed kPictureBytes.
std::set<int64_t> columns_of(const PreviewRows& rows) {
  std::map<int64_t, uint64_t> bytes;
  std::set<int64_t> steps;
  for (const auto& [row, files] : rows)
    for (const auto& [step, file] : files) {
      bytes[step] += file.bytes;
      steps.insert(step);
    }
  for (size_t count = std::min(kColumns, steps.size()); count > 1; --count) {
    const std::set<int64_t> chosen = evenly(steps, count);
    uint64_t sum = 0;
    for (const int64_t step : chosen) sum += bytes[step];
    if (sum <= kPictureBytes) return chosen;
  }
  return evenly(steps, 1);
}

void embed_previews(Report& report, const PreviewRows& rows) {
  const std::set<int64_t> columns = columns_of(rows);
  uint64_t left = kPictureBytes;
  for (const auto& [row, files] : rows) {
    ReportRow shown{.prompt = row.second};
    for (const auto& [step, file] : files) {
      if (!columns.contains(step) || file.bytes > left) {
        ++report.pictures_left_out;
        continue;
      }
      shown.pictures.push_back({.step = step, .webp = base::read_file(file.path, left)});
      left -= shown.pictures.back().webp.size();
    }
    if (!shown.pictures.empty()) report.previews.push_back(std::move(shown));
  }
}

}  // namespace

TrainLog::TrainLog(fs::path folder) : folder_(std::move(folder)) {}

/// Cutting the file needs no space on a full disk, and unlike writing it anew takes no time for long logs.
void TrainLog::open() {
  file_.close();  // may still write what it holds back, so before the cut
  std::error_code ignored;
  fs::resize_file(folder_ / "log.jsonl", size_, ignored);
  file_ = std::ofstream(folder_ / "log.jsonl", std::ios::binary | std::ios::app);
}

void TrainLog::begin(int64_t step) {
  std::error_code ignored;
  fs::create_directories(folder_, ignored);
  size_ = step > 0 ? bytes_up_to(folder_ / "log.jsonl", step) : 0;
  open();
  drop_previews_after(folder_ / "previews", step);
}

void TrainLog::append(const json& line) {
  if (!file_) open();  // an earlier line did not fit on the disk: what is there of it goes
  const std::string text = line.dump(-1, ' ', false, json::error_handler_t::replace) + '\n';
  if (file_ << text << std::flush) size_ += text.size();
}

void TrainLog::add_previews(int64_t step, const std::vector<Preview>& previews) {
  std::error_code ignored;
  fs::create_directories(folder_ / "previews", ignored);
  int64_t number = 0;
  for (const Preview& preview : previews) {
    ++number;
    try {
      const image::EncodeOptions webp{
          .format = image::Format::webp, .quality = 85, .metadata = {.parameters = preview.prompt}};
      base::write_file(preview_path(folder_, step, number), image::encode(preview.picture, webp));
    } catch (const base::Error&) {  // most likely no space: training is worth more than its pictures
      continue;
    }
    append({{"step", step}, {"preview", number}, {"prompt", preview.prompt}});
  }
}

void TrainLog::write_report(const json& about) const {
  Report report{.name = folder_.stem().string(), .about = about};  // the folder is OUTPUT.train
  PreviewRows previews;
  std::ifstream in(folder_ / "log.jsonl", std::ios::binary);
  for (std::string text; std::getline(in, text);) {
    const json line = json::parse(text, nullptr, false);
    const auto step = step_of(line);
    if (!step) continue;
    add_line(report, *step, line);
    add_preview(previews, folder_, *step, line);
  }
  try {
    embed_previews(report, previews);
    base::write_file(folder_ / "report.html", report_page(report));
  } catch (const base::Error&) {
    return;  // the earlier report stays
  }
}

}  // namespace calotype::train
