// What lies in a folder or archive of training data, before pictures are decoded. Part of open_dataset().
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "train/dataset.h"

namespace calotype::train {

/// Why a file is not used, for counting; the sentence for people stands beside it. In the order of a summary.
enum class Fault {
  none,
  not_a_picture,
  nested_archive,
  refused,  ///< by the archive reader, or no ordinary file
  empty,
  damaged,
  too_small,
  too_large,
  unsupported,
  duplicate,
  bad_caption,
  lone_caption,
  lone_mask,
};

enum class FileKind { picture, caption, other };

struct FoundFile {
  std::string name;            ///< inside the data set, '/' between folders, in whatever encoding
  std::filesystem::path path;  ///< on disk; "" for what was not unpacked
  FileKind kind = FileKind::other;
  Fault fault = Fault::none;
  std::string reason;  ///< sentence without the name, "" without fault
  std::string detail;  ///< a few words for summaries, may be empty

  void refuse(Fault why, std::string sentence, std::string words = "");
};

struct FoundFiles {
  std::vector<FoundFile> files;  ///< by name
  int64_t ignored = 0;           ///< hidden files and what operating systems leave behind
};

/// Goes through the folder, or unpacks the archive into options.unpack_folder. Progress and errors as open_dataset().
FoundFiles find_files(const DatasetOptions& options, const base::Progress& report, const base::CancelToken* cancel);

/// "12 are not pictures (first: notes.md), 1 is below 64 pixels (thumb.png, 32×32)".
std::string fault_summary(const std::vector<FoundFile>& files, int min_side);

}  // namespace calotype::train
