#include "hub/hub_names.h"

#include <fnmatch.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/utf8.h"

namespace calotype::hub {
namespace {

constexpr size_t kMaxRepoPart = 96, kMaxPathBytes = 1024, kMaxComponentBytes = 200;

bool is_repo_part(std::string_view part) {
  if (part.empty() || part.size() > kMaxRepoPart) return false;
  const auto is_edge = [](char c) { return c == '-' || c == '.'; };
  if (is_edge(part.front()) || is_edge(part.back()) || part.find("..") != std::string_view::npos) return false;
  return std::all_of(part.begin(), part.end(),
                     [](unsigned char c) { return c < 0x80 && (std::isalnum(c) || c == '-' || c == '_' || c == '.'); });
}

std::string_view component_problem(std::string_view component) {
  if (component.empty()) return "it has an empty component";
  if (component == "." || component == "..") return "it leads out of the folder";
  if (component.size() > kMaxComponentBytes) return "it is too long";
  std::string lower(component);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (lower == ".git") return "it would change a git repository";
  return "";
}

}  // namespace

void check_repo_name(const std::string& name) {
  const size_t slash = name.find('/');
  const std::string_view whole(name);
  const bool right =
      slash != std::string::npos && is_repo_part(whole.substr(0, slash)) && is_repo_part(whole.substr(slash + 1));
  base::check(right, base::ErrorKind::bad_input, "{} is no repository, expected OWNER/NAME", base::printable(name));
}

std::string_view file_name_problem(std::string_view name) {
  if (name.size() > kMaxPathBytes) return "it is too long";
  if (name.starts_with('/')) return "it is absolute";
  if (base::first_broken_utf8(name)) return "it is no UTF-8";
  for (const unsigned char c : name) {
    if (c < 0x20 || c == 0x7F) return "it holds control characters";
    if (c == '\\') return "it holds a backslash";
  }
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    if (const std::string_view problem = component_problem(name.substr(begin, end - begin)); !problem.empty())
      return problem;
    begin = end + 1;
  }
  return "";
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& path) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    const std::string whole = pattern.ends_with('/') ? pattern + "*" : pattern;
    return ::fnmatch(whole.c_str(), path.c_str(), 0) == 0;
  });
}

}  // namespace calotype::hub
