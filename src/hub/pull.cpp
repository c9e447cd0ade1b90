#include "hub/pull.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/sha256.h"
#include "hub/hub_names.h"

namespace calotype::hub {
namespace fs = std::filesystem;

using base::ErrorKind;
using nlohmann::json;

namespace {

constexpr const char* kRecord = "calotype-source.json";
constexpr uint64_t kMaxCardBytes = 4u << 20;

// Pickles run code when they are opened, the others are formats that nothing here reads.
const std::vector<std::string> kForeignFormats = {
    "*.bin",       "*.pt",     "*.pth", "*.ckpt",    "*.pkl",         "*.pickle", "*.h5",   "*.msgpack", "*.onnx",
    "*.onnx_data", "*.tflite", "*.ot",  "*.mlmodel", "*.mlpackage/*", "*.engine", "*.plan", "*.xml"};

bool has_file(const Repository& repo, const std::string& path) {
  return std::any_of(repo.files.begin(), repo.files.end(), [&](const RepoFile& file) { return file.path == path; });
}

/// Why a file is not fetched although nobody said so, or "".
std::string_view reason_to_leave(const Repository& repo, const RepoFile& file) {
  if (file.path == ".gitattributes" || file.path == kRecord) return "of no use here";
  if (matches_any(kForeignFormats, file.path)) return "a format that is not read here";
  const bool at_root = file.path.find('/') == std::string::npos;
  if (at_root && file.path.ends_with(".safetensors") && has_file(repo, "model_index.json"))
    return "the folders beside it hold the same weights";
  return "";
}

void choose_files(PullPlan& plan, const std::vector<std::string>& include) {
  for (const RepoFile& file : plan.repository.files) {
    if (!include.empty()) {
      // The card states the licence and comes along always.
      if (matches_any(include, file.path) || file.path == "README.md") plan.files.push_back(file);
      continue;
    }
    const std::string_view reason = reason_to_leave(plan.repository, file);
    if (reason.empty())
      plan.files.push_back(file);
    else if (file.size.value_or(0) > 1 << 20)
      plan.left_out.push_back(fmt::format("{}: {}", base::printable(file.path), reason));
  }
  const bool any =
      std::any_of(plan.files.begin(), plan.files.end(), [](const RepoFile& f) { return f.path != "README.md"; });
  base::check(any || (include.empty() && !plan.files.empty()), ErrorKind::not_found,
              "{}: none of its {} files is wanted; --include takes patterns over whole paths, for example 'vae/*'",
              plan.repository.name, plan.repository.files.size());
}

std::string file_sha256(const fs::path& path, const base::CancelToken* cancel) {
  std::ifstream in(path, std::ios::binary);
  base::Sha256 hash;
  std::vector<char> block(1 << 20);
  while (in.read(block.data(), static_cast<std::streamsize>(block.size())) || in.gcount() > 0) {
    if (cancel) cancel->throw_if_requested();
    hash.update(std::string_view(block.data(), static_cast<size_t>(in.gcount())));
  }
  return hash.hex();
}

/// Is this very file here already? Large ones are read to know; small ones are fetched again, which costs as little.
bool is_here(const RepoFile& file, const fs::path& path, const base::CancelToken* cancel) {
  std::error_code error;
  if (file.sha256.empty() || !file.size || !fs::is_regular_file(path, error)) return false;
  return fs::file_size(path, error) == *file.size && !error && file_sha256(path, cancel) == file.sha256;
}

uint64_t bytes_here(const fs::path& path) {
  std::error_code error;
  const uint64_t bytes = fs::file_size(path, error);
  return error ? 0 : bytes;
}

void check_room(const PullPlan& plan) {
  struct statvfs disk {};
  if (::statvfs(plan.folder.c_str(), &disk) != 0) return;
  uint64_t needed = 0;
  for (const RepoFile& file : plan.files) {
    const uint64_t here =
        std::max(bytes_here(plan.folder / file.path), bytes_here(plan.folder / (file.path + ".part")));
    needed += file.size.value_or(0) - std::min(here, file.size.value_or(0));
  }
  const uint64_t room = static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
  base::check(
      needed <= room, ErrorKind::disk_full,
      "{}: {} needs {} bytes more, the disk has room for {}; --target names another folder, --include fewer files",
      plan.folder.string(), plan.repository.name, needed, room);
}

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

void write_record(const PullPlan& plan, const std::string& revision) {
  json files = json::object();
  for (const RepoFile& file : plan.files) {
    json& entry = files[file.path] = json::object();
    if (file.size) entry["size"] = *file.size;
    if (!file.sha256.empty()) entry["sha256"] = file.sha256;
    if (!file.git_id.empty()) entry["git_sha1"] = file.git_id;
  }
  const json record = {{"source", plan.source},
                       {"repository", plan.repository.name},
                       {"revision", revision},
                       {"commit", plan.repository.commit},
                       {"license", plan.licence.id},
                       {"license_name", plan.licence.name},
                       {"license_link", plan.licence.link},
                       {"base_model", plan.licence.base_model},
                       {"gated", plan.repository.gated},
                       {"pulled_at", now_text()},
                       {"files", std::move(files)}};
  base::write_file(plan.folder / kRecord, record.dump(2) + "\n");
}

PullPlan make_plan(const HubClient& hub, const std::string& repo, const PullOptions& options) {
  PullPlan plan{.repository = hub.look_up(repo, options.revision)};
  plan.source = hub.page(plan.repository.name);
  plan.folder = options.target.empty() ? pulled_model_folder(repo) : options.target;
  choose_files(plan, options.include);
  for (RepoFile& file : plan.files) {
    if (!file.size) file = hub.complete(plan.repository, file);
    plan.bytes += file.size.value_or(0);
    if (file.path == "README.md") plan.licence = licence_of_card(hub.read(plan.repository, file, kMaxCardBytes));
  }
  return plan;
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  base::check(!error, ErrorKind::bad_input, "{}: cannot make this folder: {}", folder.string(), error.message());
}

}  // namespace

PullResult pull(const std::string& repo, PullOptions options) {
  const HubClient hub(options.access);
  PullResult result{.plan = make_plan(hub, repo, options)};
  PullPlan& plan = result.plan;
  result.folder = plan.folder;
  if (options.on_plan) options.on_plan(plan);
  make_folder(plan.folder);
  check_room(plan);
  uint64_t done = 0;
  const auto report = [&](uint64_t bytes, const RepoFile& file) {
    if (options.progress)
      options.progress({.stage = "pull",
                        .done = static_cast<int64_t>(bytes),
                        .total = static_cast<int64_t>(std::max(plan.bytes, bytes)),
                        .note = base::printable(file.path)});
  };
  for (const RepoFile& file : plan.files) {
    const fs::path target = plan.folder / file.path;
    make_folder(target.parent_path());
    if (is_here(file, target, options.access.cancel)) {
      ++result.kept;
    } else {
      hub.fetch(plan.repository, file, target, [&](uint64_t bytes, uint64_t) { report(done + bytes, file); });
      ++result.fetched;
    }
    done += file.size.value_or(0);
    report(done, file);
  }
  write_record(plan, options.revision);  // last: it says that the rest is complete
  return result;
}

fs::path pulled_models_folder() {
  for (const auto& [variable, below] : {std::pair{"CALOTYPE_DATA", "models"},
                                        {"XDG_DATA_HOME", "calotype/models"},
                                        {"HOME", ".local/share/calotype/models"}})
    if (const char* value = std::getenv(variable); value && *value) return fs::path(value) / below;
  base::fail(ErrorKind::bad_input, "neither CALOTYPE_DATA nor HOME says where models go; name a folder with --target");
}

fs::path pulled_model_folder(const std::string& repo) {
  check_repo_name(repo);
  return pulled_models_folder() / repo;
}

std::optional<fs::path> find_pulled_model(const std::string& name) {
  try {
    const fs::path folder = pulled_model_folder(name);
    if (fs::exists(folder / kRecord)) return folder;
  } catch (const std::exception&) {  // no such name, or no place for models
  }
  return std::nullopt;
}

}  // namespace calotype::hub
