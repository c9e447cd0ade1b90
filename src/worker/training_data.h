// The pictures of a training as hosted trainers take them: a zip, its captions cleaned the way they clean theirs.
//
//   const TrainingData data = unpack_training_data("images.zip", "work/pictures", {.trigger = "TOK", .prefix = "a photo
//   of"});
//
// Rules (replicate/flux-fine-tuner train.py): __MACOSX/ and ._ files are left out, here in every folder; captions
// NAME.txt have their lines and parts joined by ", ". Everything else, from what is a picture to the trigger word, is
// the data set's own business (train/dataset.h). Pure but for the files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/cancel.h"

namespace calotype::worker {

/// "a cat,\nlooking  up,, " → "a cat, looking  up": lines and parts between commas, trimmed, empty ones dropped.
std::string cleaned_caption(const std::string& text);

struct TrainingData {
  int pictures = 0, captions = 0;
  std::vector<std::string> notes;  ///< files that could not be used, and why
};

/// Unpacks into `folder`, which is made anew. Errors: bad_input for what is no zip (tar is fine, too), and those of
/// files::ArchiveReader; canceled.
TrainingData unpack_training_data(const std::filesystem::path& archive, const std::filesystem::path& folder,
                                  const base::CancelToken* cancel);

/// The caption of pictures that have none: prefix, trigger and suffix, as far as they are there.
std::string default_caption(const std::string& prefix, const std::string& trigger, const std::string& suffix);

}  // namespace calotype::worker
