#include "base/data_folder.h"

#include <cstdlib>

namespace calotype::base {
namespace fs = std::filesystem;

namespace {

fs::path find_data_folder() {
  std::error_code error;
  // A folder that was named for pulled models only holds none of these files.
  if (const char* given = std::getenv("CALOTYPE_DATA"); given && *given)
    if (fs::is_directory(fs::path(given) / "models" / "tokenizers", error)) return given;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path installed = program.parent_path().parent_path() / "share" / "calotype";
  if (!error && fs::is_directory(installed / "models", error)) return installed;
  return CALOTYPE_SOURCE_DIR;
}

}  // namespace

const fs::path& data_folder() {
  static const fs::path folder = find_data_folder();
  return folder;
}

fs::path model_in_the_box() {
  const fs::path box = data_folder() / "models" / "calotype-icons";
  std::error_code error;
  return fs::exists(box / "model_index.json", error) ? box : fs::path();
}

}  // namespace calotype::base
