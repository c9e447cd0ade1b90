// Names that come from a hub or go to one. What a hub lists is foreign text and becomes paths on this disk.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace calotype::hub {

/// bad_input unless `name` is OWNER/NAME: two parts of letters, digits, "-", "_", ".", at most 96 characters each, none
/// beginning or ending with "-" or ".".
void check_repo_name(const std::string& name);

/// Why a file's name may not become a path below a folder ("it leads out of the folder"), or "". Accepted are relative
/// paths in UTF-8 with "/" between components, at most 1,024 bytes, without "..", ".", ".git", control characters and
/// "\".
std::string_view file_name_problem(std::string_view name);

/// Shell patterns as the hub's own client takes them: "*" also matches "/", "folder/" means everything in it.
bool matches_any(const std::vector<std::string>& patterns, const std::string& path);

}  // namespace calotype::hub
