#include "hub/push.h"

#include <algorithm>

#include "base/error.h"
#include "hub/hub_names.h"

namespace calotype::hub {
namespace fs = std::filesystem;

using base::ErrorKind;

namespace {

constexpr size_t kMaxFiles = 10'000;

bool is_unfinished(const std::string& name) {
  return name.ends_with(".part") || name.find(".partial-") != std::string::npos;
}

std::vector<UploadFile> files_below(const fs::path& folder) {
  std::vector<UploadFile> files;
  for (fs::recursive_directory_iterator entry(folder), end; entry != end; ++entry) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with('.') || is_unfinished(name)) {
      entry.disable_recursion_pending();
      continue;
    }
    if (!entry->is_regular_file()) continue;
    base::check(files.size() < kMaxFiles, ErrorKind::bad_input, "{}: holds more than {} files", folder.string(),
                kMaxFiles);
    files.push_back({.source = entry->path(),
                     .path = entry->path().lexically_relative(folder).generic_string(),
                     .size = entry->file_size()});
  }
  std::sort(files.begin(), files.end(), [](const UploadFile& a, const UploadFile& b) { return a.path < b.path; });
  return files;
}

std::vector<UploadFile> files_of(const fs::path& source) {
  try {
    if (fs::is_directory(source)) return files_below(source);
    base::check(fs::is_regular_file(source), ErrorKind::not_found, "{}: no such file or folder", source.string());
    return {{.source = source, .path = source.filename().string(), .size = fs::file_size(source)}};
  } catch (const fs::filesystem_error& error) {
    base::fail(ErrorKind::bad_input, "{}: cannot be read: {}", source.string(), error.code().message());
  }
}

}  // namespace

PushResult push(const fs::path& source, const std::string& repo, PushOptions options) {
  check_repo_name(repo);
  const HubClient hub(options.access);
  const std::vector<UploadFile> files = files_of(source);
  base::check(!files.empty(), ErrorKind::bad_input, "{}: holds no files to send", source.string());
  PushResult result{.page = hub.page(repo), .files = static_cast<int>(files.size())};
  for (const UploadFile& file : files) result.bytes += file.size;
  result.created = hub.create(repo, options.visibility);
  result.commit = hub.upload(repo, files, options.message, [&](uint64_t done, uint64_t total) {
    if (options.progress)
      options.progress({.stage = "push", .done = static_cast<int64_t>(done), .total = static_cast<int64_t>(total)});
  });
  return result;
}

}  // namespace calotype::hub
