// The program's name and version, as printed and as written into pictures.
#pragma once

#include <string_view>

namespace calotype::cli {

inline constexpr std::string_view kProgramVersion = "calotype 0.1.0";

}  // namespace calotype::cli
