// Which caption and which mask belong to which picture: a matter of names alone. Part of open_dataset().
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "train/dataset_files.h"

namespace calotype::train {

inline constexpr size_t kNoFile = SIZE_MAX;

/// A picture that is no mask, and what belongs to it: indices into the found files, or kNoFile.
struct Partners {
  size_t picture = 0, caption = kNoFile, mask = kNoFile;
  size_t shared_with = kNoFile;  ///< another picture that has the same name but for its extension, or the same caption
};

/// Names as dataset.h states them; a stem is compared exactly, else without regard to ASCII case. A folder called masks
/// holds masks only if one of its files has a picture outside: it might be the subject. In the order of `files`.
std::vector<Partners> find_partners(const std::vector<FoundFile>& files);

}  // namespace calotype::train
