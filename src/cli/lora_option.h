// How a command line names an adapter: FILE, or FILE:SCALE.
//
//   parse_lora("styles/ink.safetensors:0.8", {})       // styles/ink.safetensors at 0.8
//   parse_lora("ink:0.8", "styles")                    // the same, with --lora-dir styles
#pragma once

#include <filesystem>
#include <string>

#include "adapters/lora_list.h"

namespace calotype::cli {

/// The last colon followed by a number parts the scale off; other colons belong to the path. With a folder, names
/// without "/" are files in it, with or without ".safetensors". Errors: bad_input for a scale that is no number;
/// not_found for a name that the folder does not have.
adapters::LoraChoice parse_lora(const std::string& text, const std::filesystem::path& folder);

}  // namespace calotype::cli
