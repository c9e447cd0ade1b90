// A training run on one HTML page that needs nothing else: no network, no scripts, pictures and curves inside it.
//
//   Report report{.name = "tok.safetensors", .about = about};
//   report.loss.add(1, 0.52);  …
//   base::write_file("report.html", report_page(report));
//
// Foreign text (prompts, names, settings) is escaped; the page is well-formed XML as well. Pure function.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "train/line_chart.h"

namespace calotype::train {

struct ReportPicture {
  int64_t step = 0;
  std::string webp;  ///< the file's bytes
};

/// One prompt and what was drawn for it, in the order of steps.
struct ReportRow {
  std::string prompt;
  std::vector<ReportPicture> pictures;
};

struct Validation {
  int64_t step = 0;
  double loss = 0;
};

struct Report {
  std::string name;      ///< of the output
  nlohmann::json about;  ///< {"steps", "total_steps", "settings", "loss", "skipped_steps", "peak_memory" (bytes), …};
                         ///< what is absent or of another type is not shown
  Curve loss, validation, rate, gradient, seconds;  ///< seconds: of each step
  double total_seconds = 0;                         ///< of all steps
  std::optional<Validation> base, latest, best;     ///< of the validation loss; base: at step 0
  std::vector<ReportRow> previews;
  size_t pictures_left_out = 0;  ///< previews that would have made the page too large
};

std::string report_page(const Report& report);

/// Text for HTML, between tags or quotes; characters that XML forbids and broken UTF-8 become U+FFFD.
std::string html_escaped(std::string_view text);

}  // namespace calotype::train
