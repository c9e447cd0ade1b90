#include "cli/lora_option.h"

#include <charconv>
#include <optional>

#include "base/error.h"

namespace calotype::cli {
namespace fs = std::filesystem;
using base::ErrorKind;
using base::printable;

namespace {

std::optional<double> number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

fs::path in_folder(const fs::path& name, const fs::path& folder) {
  if (folder.empty() || name.has_parent_path()) return name;
  fs::path with_ending = folder / name;
  with_ending += ".safetensors";
  for (const fs::path& path : {folder / name, with_ending})
    if (fs::is_regular_file(path)) return path;
  base::fail(ErrorKind::not_found, "--lora {}: {} has neither a file {} nor {}", printable(name.string()),
             folder.string(), printable(name.string()), printable(with_ending.filename().string()));
}

}  // namespace

adapters::LoraChoice parse_lora(const std::string& text, const fs::path& folder) {
  base::check(!text.empty(), ErrorKind::bad_input, "--lora is empty, expected FILE or FILE:SCALE");
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return {.path = in_folder(text, folder)};
  const std::string front = text.substr(0, colon), back = text.substr(colon + 1);
  if (const auto scale = number(back)) return {.path = in_folder(front, folder), .scale = *scale};
  base::check(fs::exists(text) || !fs::is_regular_file(front), ErrorKind::bad_input,
              "--lora {}: the scale {} is not a number", printable(text), printable(back));
  return {.path = in_folder(text, folder)};
}

}  // namespace calotype::cli
