#include "train/train_log.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <random>
#include <regex>
#include <sstream>

#include "base/atomic_file.h"
#include "base/utf8.h"
#include "image/image_codec.h"
#include "support/golden.h"
#include "train/report_page.h"

namespace calotype::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kHostile =
    "<script>alert(\"1\" + '2')</script> & \u202Eשלום עולם مرحبا 🦊 \x01 \xff";

std::string text_of(const fs::path& path) { return base::read_file(path, 1 << 28); }

/// The log as any program would read it: every line must be JSON.
std::vector<json> lines_of(const fs::path& folder) {
  std::vector<json> lines;
  std::istringstream in(text_of(folder / "log.jsonl"));
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

json step_line(int64_t step, json loss) {
  return {{"step", step}, {"loss", loss}, {"lr", 4e-4}, {"grad_norm", loss}, {"seconds", 0.25}, {"eta_seconds", 9}};
}

image::RgbImage picture(int side, unsigned seed, bool noise) {
  std::mt19937 random(seed);
  image::RgbImage out{.width = side, .height = side};
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x)
      for (const unsigned value :
           {static_cast<unsigned>(x * 255 / side), static_cast<unsigned>(y * 255 / side), seed * 40})
        out.pixels.push_back(static_cast<uint8_t>(noise ? random() : value));
  return out;
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++found;
  return found;
}

/// Well-formed as XML 1.0 requires: nesting, quoted attributes, entities; what a page with unescaped text is not.
::testing::AssertionResult well_formed(const std::string& page) {
  static const std::regex tag(R"re(<(/?)([a-zA-Z][a-zA-Z0-9]*)((?: [a-zA-Z-]+="[^"<]*")*) ?(/?)>)re");
  static const std::regex entity("&(amp|lt|gt|quot|#39);");
  const std::string doctype = "<!DOCTYPE html>\n";
  if (!page.starts_with(doctype)) return ::testing::AssertionFailure() << "no doctype";
  std::vector<std::string> open;
  for (size_t at = doctype.size(); at < page.size(); ++at) {
    std::smatch match;
    const auto here = page.begin() + static_cast<std::ptrdiff_t>(at);
    const std::string around = page.substr(at, 120);
    if (page[at] == '<') {
      // A data: URI of megabytes is too long for std::regex's recursion: tags are short without them.
      const size_t end = page.find('>', at);
      std::string text = page.substr(at, end - at + 1);
      if (const size_t data = text.find(";base64,"); data != std::string::npos)
        text.erase(data, text.find('"', data) - data);
      if (!std::regex_match(text, match, tag)) return ::testing::AssertionFailure() << "not a tag: " << around;
      if (match[1].length()) {
        if (open.empty() || open.back() != match[2]) return ::testing::AssertionFailure() << "not open: " << around;
        open.pop_back();
      } else if (!match[4].length()) {
        open.push_back(match[2]);
      }
      at = end;
    } else if (page[at] == '&') {
      if (!std::regex_search(here, page.end(), match, entity, std::regex_constants::match_continuous))
        return ::testing::AssertionFailure() << "not an entity: " << around;
    } else if (static_cast<unsigned char>(page[at]) < 0x20 && page[at] != '\n') {
      return ::testing::AssertionFailure() << "control character before: " << around;
    }
  }
  if (!open.empty()) return ::testing::AssertionFailure() << open.back() << " stays open";
  return ::testing::AssertionSuccess();
}

TEST(TrainLog, GoesOnBehindTheStepOfTheCheckpoint) {
  const test::TemporaryFolder temporary;
  const fs::path folder = temporary / "tok.train";
  TrainLog first(folder);
  first.begin(0);
  std::vector<json> written;
  first.append(written.emplace_back(json{{"step", 0}, {"validation_loss", 0.5}}));
  for (int64_t step = 1; step <= 5; ++step) first.append(written.emplace_back(step_line(step, 0.5 / 3)));
  EXPECT_EQ(lines_of(folder), written) << "each line is in the file at once";
  first.add_previews(2, {{"a fox", picture(32, 1, false)}});
  first.add_previews(5, {{"a fox", picture(32, 2, false)}});
  // What kill -9 leaves.
  std::ofstream(folder / "log.jsonl", std::ios::app) << R"({"step":3,"lo)";
  base::write_file(folder / "previews/step-000002-2.webp.Ab3dEf", "half");

  TrainLog second(folder);
  second.begin(3);
  second.append(step_line(4, json()));
  std::vector<json> want(written.begin(), written.begin() + 4);
  want.push_back(step_line(4, json()));
  EXPECT_EQ(lines_of(folder), want);
  EXPECT_TRUE(fs::exists(folder / "previews/step-000002-1.webp"));
  EXPECT_FALSE(fs::exists(folder / "previews/step-000005-1.webp"));
  EXPECT_FALSE(fs::exists(folder / "previews/step-000002-2.webp.Ab3dEf"));

  TrainLog third(folder);
  third.begin(0);
  EXPECT_EQ(lines_of(folder), std::vector<json>()) << "the validation before step 1 as well";
  EXPECT_TRUE(fs::is_empty(folder / "previews"));
}

// The torn line ends where a whole one would: without its newline it may be cut short ("step":12 of "step":120 …).
TEST(TrainLog, DropsALastLineWithoutEndEvenIfItIsJson) {
  const test::TemporaryFolder temporary;
  base::write_file(temporary / "log.jsonl", "{\"loss\":0.5,\"step\":1}\n{\"loss\":0.5,\"step\":2}");
  TrainLog log(temporary.path());
  log.begin(7);
  log.append({{"step", 8}});
  EXPECT_EQ(text_of(temporary / "log.jsonl"), "{\"loss\":0.5,\"step\":1}\n{\"step\":8}\n");
}

/// The process may not write files beyond so many bytes, as if the disk were full.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) {
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FileLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

TEST(TrainLog, LosesLinesNotTheRunOnAFullDisk) {
  const test::TemporaryFolder temporary;
  TrainLog log(temporary.path());
  log.begin(0);
  log.append(step_line(1, 0.5));
  log.write_report({{"steps", 1}});
  const std::string report = text_of(temporary / "report.html");
  {
    const FileLimit full(fs::file_size(temporary / "log.jsonl") + 20);  // in the middle of the next line
    for (int64_t step = 2; step < 500; ++step) log.append(step_line(step, 0.5));
    log.add_previews(250, {{"a fox", picture(64, 1, true)}});
    log.write_report({{"steps", 499}});
  }
  log.append(step_line(500, 0.25));
  EXPECT_EQ(lines_of(temporary.path()), (std::vector<json>{step_line(1, 0.5), step_line(500, 0.25)}));
  EXPECT_TRUE(fs::is_empty(temporary / "previews"));
  EXPECT_EQ(text_of(temporary / "report.html"), report) << "the earlier report stays whole";

  TrainLog nowhere("/proc/no/such/place");
  nowhere.begin(3);
  nowhere.append(step_line(4, 0.5));
  nowhere.add_previews(4, {{"a fox", picture(64, 1, true)}});
  nowhere.write_report({{"steps", 4}});
}

/// A run as it may look, in $CALOTYPE_SAMPLE_REPORT when that is set, for people to look at.
fs::path sample_run(const test::TemporaryFolder& temporary) {
  const char* kept = std::getenv("CALOTYPE_SAMPLE_REPORT");
  const fs::path folder = (kept ? fs::path(kept) : temporary.path()) / "fox & \"friends\".safetensors.train";
  TrainLog log(folder);
  log.begin(0);
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (int64_t step = 0; step <= 1400; ++step) {
    const double learned = 0.42 + 0.12 * std::exp(-static_cast<double>(step) / 300);
    if (step > 0) {
      json line = step_line(step, learned * std::exp(0.3 * normal(random)));
      line["lr"] =
          4e-4 * std::min(1.0, static_cast<double>(step) / 50) * (1 + std::cos(static_cast<double>(step) / 637)) / 2;
      line["grad_norm"] = 0.3 * std::exp(0.4 * normal(random)) * (step == 333 ? 400 : 1);
      line["seconds"] = 1.9 + 0.1 * std::abs(normal(random));
      if ((step >= 600 && step < 609) || step == 900) line["loss"] = line["grad_norm"] = json();
      log.append(line);
    }
    if (step % 100 == 0)
      log.append({{"step", step}, {"validation_loss", learned + 8e-8 * static_cast<double>(step * step) / 2}});
    if (step % 100 == 0 && step > 0)
      log.add_previews(
          step, {{"TOK, a fox in the snow, golden hour, 85 mm", picture(256, static_cast<unsigned>(step), false)},
                 {kHostile, picture(256, static_cast<unsigned>(step) + 1, false)}});
  }
  json settings = {{"mode", 0},      {"trigger", "TOK <b>"}, {"lr", 4e-4},       {"optimizer", "adamw"},
                   {"layers", ""},   {"rank", 16},           {"flip", false},    {"resolution", {512, 768, 1024}},
                   {"alpha", 16.0},  {"batch", 4},           {"warmup", 50},     {"schedule", "cosine"},
                   {"clip", 1.0},    {"beta1", 0.9},         {"beta2", 0.999},   {"epsilon", 1e-6},
                   {"ema", 0.99},    {"guidance", 1.0},      {"seed", 12345678}, {"timesteps", "sigmoid"},
                   {"masked", true}, {"latents", "sample"},  {"preserve", ""},   {"weight-decay", 0.01}};
  log.write_report({{"steps", 1400},
                    {"total_steps", 2000},
                    {"settings", settings},
                    {"skipped_steps", 10},
                    {"loss", 0.4261},
                    {"peak_memory", 25.5e9}});
  return folder;
}

TEST(TrainLog, ReportIsOneSafeSelfContainedPage) {
  const test::TemporaryFolder temporary;
  const fs::path folder = sample_run(temporary);
  const std::string page = text_of(folder / "report.html");
  EXPECT_TRUE(well_formed(page));
  EXPECT_FALSE(base::first_broken_utf8(page));
  for (const char* never : {"<script", "http:", "https:", "//", "<link", "<b>alert", "TOK <b>", "url("}) {
    // "//" occurs in base64.
    const std::string text = std::regex_replace(page, std::regex(";base64,[^\"]*\""), "\"");
    EXPECT_EQ(text.find(never), std::string::npos) << never;
  }
  EXPECT_EQ(count(page, "&lt;script&gt;alert(&quot;1&quot; + &#39;2&#39;)&lt;/script&gt; &amp; "), 9)
      << "the prompt, and the text of its eight pictures";
  EXPECT_NE(page.find("<title>fox &amp; &quot;friends&quot;.safetensors"), std::string::npos);
  EXPECT_NE(page.find("TOK &lt;b&gt;"), std::string::npos);
  for (const char* number : {">1,400<", "of 2,000", ">10<", "0.4261", ">23.7 GiB<", "512, 768, 1024", ">lora<"})
    EXPECT_NE(page.find(number), std::string::npos) << number;

  // 14 steps have previews, 8 are shown: 0, 13/7, 26/7, … rounded.
  for (const int step : {100, 300, 500, 700, 800, 1000, 1200, 1400})
    EXPECT_EQ(count(page, fmt::format("<figcaption>step {}</figcaption>", grouped(step))), 2) << step;
  EXPECT_EQ(count(page, "<img "), 16);
  const std::string start = "data:image/webp;base64,";
  EXPECT_EQ(count(page, start), 16);
  const auto decoded = image::decode(folder / "previews/step-000100-1.webp");
  EXPECT_EQ(decoded.width, 256);
}

// Vectors of RFC 4648, section 10.
TEST(ReportPage, EmbedsBytesAsBase64) {
  const std::pair<const char*, const char*> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : vectors) {
    const std::string page = report_page({.previews = {{.prompt = "p", .pictures = {{.step = 1, .webp = bytes}}}}});
    EXPECT_NE(page.find(fmt::format("base64,{}\"", text)), std::string::npos) << bytes;
  }
}

TEST(ReportPage, StandsWhateverIsMissingOrOfAnotherType) {
  for (const json& about : {json(), json::object(), json{{"steps", "many"}, {"settings", 3}, {"loss", json()}},
                            json{{"settings", {{"trigger", 7}, {"a", json::object()}, {"mode", 99}, {"b", json()}}}},
                            json{{"steps", -1e300}, {"total_steps", 1e300}, {"peak_memory", -5}}}) {
    Report report{.name = "\x80", .about = about};
    EXPECT_TRUE(well_formed(report_page(report))) << about;
    report.loss.add(1, NAN);
    report.gradient.add(1, 3e38);
    report.gradient.add(2, -3e38);
    report.validation.add(0, 0.5);
    report.rate.add(1, 0);
    EXPECT_TRUE(well_formed(report_page(report))) << about;
  }
}

TEST(TrainLog, ReportWithPicturesOfManyMegabytesShowsFewer) {
  const test::TemporaryFolder temporary;
  TrainLog log(temporary.path());
  log.begin(0);
  // Noise does not compress: about 280 kB each.
  std::vector<Preview> previews;
  for (unsigned i = 0; i < 3; ++i) previews.push_back({fmt::format("prompt {}", i), picture(512, i, true)});
  for (const int64_t step : {10, 20, 30, 40, 50, 60, 70, 80}) log.add_previews(step, previews);
  log.write_report({{"steps", 80}});
  const std::string page = text_of(temporary / "report.html");
  EXPECT_LT(page.size(), 6'100'000U);
  EXPECT_GE(count(page, "<img "), 6);
  EXPECT_LT(count(page, "<img "), 24);
  EXPECT_EQ(count(page, "<figcaption>step 10</figcaption>"), 3);
  EXPECT_EQ(count(page, "<figcaption>step 80</figcaption>"), 3);
  EXPECT_NE(page.find("more lie in the folder previews"), std::string::npos);
}

// 0.3 s in a release build; work that grows with the square of the lines would take minutes.
TEST(TrainLog, ReportOfALongRunIsSmallAndQuick) {
  const test::TemporaryFolder temporary;
  TrainLog log(temporary.path());
  log.begin(0);
  for (int64_t step = 1; step <= 100'000; ++step)
    log.append(step_line(step, 0.5 + 0.1 * std::sin(static_cast<double>(step * step))));
  const std::clock_t begin = std::clock();
  log.write_report({{"steps", 100'000}});
  EXPECT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, 5);
  RecordProperty("milliseconds", static_cast<int>((std::clock() - begin) * 1000 / CLOCKS_PER_SEC));
  const std::string page = text_of(temporary / "report.html");
  EXPECT_LT(page.size(), 250'000U);
  EXPECT_TRUE(well_formed(page));
}

TEST(Curve, KeepsSumsAndExtremesOfAllValues) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (const int64_t steps : {1, 250, 251, 10'007}) {
    Curve curve;
    std::vector<double> values;
    for (int64_t step = 1; step <= steps; ++step) {
      values.push_back(step % 97 == 5 ? NAN : uniform(random));
      curve.add(step, values.back());
    }
    EXPECT_LE(curve.spans().size(), Curve::kMaxSpans);
    if (steps <= 250) {
      EXPECT_EQ(curve.spans().size(), static_cast<size_t>(steps));
    }
    int64_t next = 1;
    for (const CurveSpan& span : curve.spans()) {
      EXPECT_EQ(span.first, next) << "spans cover the steps without holes";
      next = span.last + 1;
      double sum = 0, least = INFINITY, greatest = -INFINITY;
      int64_t found = 0;
      for (int64_t step = span.first; step <= span.last; ++step) {
        const double value = values[static_cast<size_t>(step - 1)];
        if (std::isnan(value)) continue;
        ++found;
        sum += value;
        least = std::min(least, value);
        greatest = std::max(greatest, value);
      }
      EXPECT_EQ(span.count, found);
      EXPECT_EQ(span.missing, span.last - span.first + 1 - found);
      if (!found) continue;
      EXPECT_NEAR(span.sum, sum, 1e-12);
      EXPECT_EQ(span.least, least);
      EXPECT_EQ(span.greatest, greatest);
    }
    EXPECT_EQ(next, steps + 1);
  }
}

/// The line of a chart in the values that its axes say, whatever the drawing's own units are.
std::vector<std::pair<double, double>> read_off(const std::string& svg) {
  std::vector<std::pair<double, double>> x_ticks, y_ticks;
  static const std::regex text(R"re(<text x="([0-9.]+)" y="([0-9.]+)" text-anchor="(\w+)">([-0-9.e]+)</text>)re");
  static const std::regex tick(R"re(<path class="(grid|axis)" d="M([0-9.]+),([0-9.]+)[vH])re");
  std::vector<double> labels, positions[2];
  for (std::sregex_iterator it(svg.begin(), svg.end(), text), end; it != end; ++it)
    labels.push_back(std::stod((*it)[4].str()));
  for (std::sregex_iterator it(svg.begin(), svg.end(), tick), end; it != end; ++it) {
    if ((*it)[1] == "grid") y_ticks.push_back({labels[y_ticks.size()], std::stod((*it)[3].str())});
    if ((*it)[1] == "axis" && y_ticks.size() + x_ticks.size() < labels.size())
      x_ticks.push_back({labels[y_ticks.size() + x_ticks.size()], std::stod((*it)[2].str())});
  }
  const auto value = [](const auto& ticks, double at) {
    const auto& [v0, p0] = ticks.front();
    const auto& [v1, p1] = ticks.back();
    return v0 + (at - p0) / (p1 - p0) * (v1 - v0);
  };
  const size_t begin = svg.find("class=\"line\" d=\"");
  const std::string path = svg.substr(begin, svg.find("/>", begin) - begin);
  std::vector<std::pair<double, double>> points;
  static const std::regex point("([ML])([0-9.]+),([0-9.]+)");
  for (std::sregex_iterator it(path.begin(), path.end(), point), end; it != end; ++it) {
    if ((*it)[1] == "M" && !points.empty()) points.push_back({NAN, NAN});
    points.push_back({value(x_ticks, std::stod((*it)[2].str())), value(y_ticks, std::stod((*it)[3].str()))});
  }
  return points;
}

TEST(LineChart, ShowsValuesAtTheirPlaceAndGapsAsGaps) {
  for (const double scale : {4e-7, 0.013, 1.0, 90'000.0}) {
    Curve curve;
    std::vector<std::pair<double, double>> want;
    for (int step = 1; step <= 40; ++step) {
      const double value = step >= 20 && step < 24 ? NAN : scale * (2 + std::sin(step));
      curve.add(step, value);
      if (!std::isnan(value)) want.push_back({step, value});
      if (step == 23) want.push_back({NAN, NAN});
    }
    const auto got = read_off(line_chart({.title = "t", .curve = &curve}));
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      if (std::isnan(want[i].first)) {
        EXPECT_TRUE(std::isnan(got[i].first)) << i;
        continue;
      }
      // Coordinates are written to a tenth of a unit, of 398 for 40 steps and 194 for up to four times the scale.
      EXPECT_NEAR(got[i].first, want[i].first, 0.02);
      EXPECT_NEAR(got[i].second, want[i].second, 0.005 * scale);
    }
  }
}

TEST(LineChart, CutsSpikesAndSaysSo) {
  Curve curve;
  for (int step = 1; step <= 1000; ++step) curve.add(step, step == 500 ? 1e6 : 0.5 + 0.1 * std::sin(step));
  const std::string svg = line_chart({.title = "t", .curve = &curve, .smooth = true});
  EXPECT_NE(svg.find("highest 1e+06"), std::string::npos);
  EXPECT_EQ(svg.find(">1e6<"), std::string::npos) << "no tick up there";
}

TEST(LineChart, GroupsDigits) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(-1000), "-1,000");
  EXPECT_EQ(grouped(-999), "-999");
  EXPECT_EQ(grouped(1234567), "1,234,567");
}

}  // namespace
}  // namespace calotype::train
