// Where the program's own data lies: tokenizers and the model in the box.
#pragma once

#include <filesystem>

namespace calotype::base {

/// $CALOTYPE_DATA if it holds models/tokenizers, else share/calotype beside the program's bin folder, else the source
/// tree that it was built from. Thread-safe.
const std::filesystem::path& data_folder();

/// The small model that draws icons, in data_folder(); "" when it is not there.
std::filesystem::path model_in_the_box();

}  // namespace calotype::base
