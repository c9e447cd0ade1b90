// The report on a data set, for people and for programs.
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "train/dataset.h"

namespace calotype::train {
namespace {

using nlohmann::json;

constexpr size_t kShownCaption = 160;

std::string bucket_text(const Bucket& bucket) { return fmt::format("{}×{}", bucket.width, bucket.height); }

std::string example_text(const Example& example) {
  std::vector<std::string> buckets;
  for (const Bucket& bucket : example.buckets) buckets.push_back(bucket_text(bucket));
  std::string out = fmt::format("  {}: {}×{} pixels, trained at {}{}\n", example.name, example.width, example.height,
                                fmt::join(buckets, ", "), example.mask.empty() ? "" : ", with a mask");
  for (const std::string& caption : example.captions)
    out += fmt::format("    \"{}\"\n", base::printable(caption, kShownCaption));
  return out;
}

}  // namespace

std::string dataset_text(const Dataset& dataset) {
  const auto used = std::ranges::count_if(dataset.files, &FileReport::used);
  std::string out = fmt::format("{} pictures for training; {} of {} files are used\n", dataset.examples.size(), used,
                                dataset.files.size());
  for (const Example& example : dataset.examples) out += example_text(example);
  std::string refused, warned;
  for (const FileReport& file : dataset.files) {
    if (!file.used) refused += fmt::format("  {}: {}\n", file.name, file.reason);
    for (const std::string& warning : file.warnings) warned += fmt::format("  {}: {}\n", file.name, warning);
  }
  if (!refused.empty()) out += "not used:\n" + refused;
  if (!warned.empty()) out += "warnings:\n" + warned;
  if (!dataset.notes.empty()) out += "notes:\n";
  for (const std::string& note : dataset.notes) out += fmt::format("  {}\n", note);
  return out;
}

json dataset_json(const Dataset& dataset) {
  const auto path_text = [](const std::filesystem::path& path) { return base::printable(path.string(), 4096); };
  json examples = json::array(), files = json::array();
  for (const Example& example : dataset.examples) {
    json buckets = json::array();
    for (const Bucket& bucket : example.buckets) buckets.push_back({bucket.width, bucket.height});
    examples.push_back({{"name", example.name},
                        {"file", path_text(example.file)},
                        {"hash", example.hash},
                        {"width", example.width},
                        {"height", example.height},
                        {"captions", example.captions},
                        {"mask", path_text(example.mask)},
                        {"buckets", std::move(buckets)}});
  }
  for (const FileReport& file : dataset.files)
    files.push_back({{"name", file.name}, {"used", file.used}, {"reason", file.reason}, {"warnings", file.warnings}});
  return {{"examples", std::move(examples)}, {"files", std::move(files)}, {"notes", dataset.notes}};
}

}  // namespace calotype::train
