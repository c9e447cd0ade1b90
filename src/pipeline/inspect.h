// What a checkpoint file is, whether it is whole, and what is still needed to draw with it.
//
//   for (const FileReport& file : inspect("models/FLUX.1-dev", {.check_values = true})) print(file);
//
// Thread-safe.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/progress.h"
#include "pipeline/model_bundle.h"

namespace calotype::pipeline {

struct PartReport {
  weights::Component component = weights::Component::transformer;
  std::string variant;  ///< "dev: 19 double and 38 single blocks, width 3072", "CLIP, 12 layers, width 768", …
  int64_t tensors = 0, parameters = 0;
  uint64_t bytes = 0;
  std::map<std::string, int64_t> types;  ///< number type → tensors
  std::vector<std::string> problems;     ///< missing, mis-shaped or superfluous tensors, one sentence each
  std::vector<std::string> not_finite;   ///< tensors with NaN or infinity; only with check_values
};

struct FileReport {
  std::string path, container;
  uint64_t bytes = 0;
  std::vector<PartReport> parts;
  int64_t unknown_tensors = 0;
  std::string first_unknown;
};

struct InspectOptions {
  bool check_values = false;  ///< reads every number
  base::Progress progress;
};

/// Errors: those of open_files.
std::vector<FileReport> inspect(const std::filesystem::path& path, const InspectOptions& options = {});

/// Parts that no file of the reports holds, in words: "the VAE", "the T5 text encoder".
std::vector<std::string> missing_parts(const std::vector<FileReport>& reports);

}  // namespace calotype::pipeline
