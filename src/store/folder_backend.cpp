#include <sys/stat.h>
#include <sys/statvfs.h>

#include <fstream>

#include "base/error.h"
#include "store/file_backend.h"

namespace calotype::store {
namespace fs = std::filesystem;
using base::ErrorKind;
namespace {

Time written_at(const fs::path& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? Time{status.st_mtime} * kSecond : now();
}

class FolderBackend : public FileBackend {
 public:
  explicit FolderBackend(fs::path root) : root_(std::move(root)) {
    std::error_code error;
    const bool made = fs::create_directories(root_, error);
    base::check(fs::is_directory(root_), ErrorKind::bad_input, "{}: cannot make the folder of files{}{}",
                root_.string(), error ? ": " : "", error ? error.message() : "");
    if (made) fs::permissions(root_, fs::perms::owner_all, error);
  }

  fs::path place(const std::string& id) override {
    const fs::path folder = root_ / id.substr(0, 2);
    std::error_code error;
    fs::create_directories(folder, error);
    base::check(!error, error == std::errc::no_space_on_device ? ErrorKind::disk_full : ErrorKind::internal,
                "{}: cannot make a folder: {}", folder.string(), error.message());
    return folder / id;
  }

  void keep(const StoredFile&) override {}  // AtomicFile has synced it

  std::unique_ptr<std::istream> open(const StoredFile& file, uint64_t offset) override {
    auto stream = std::make_unique<std::ifstream>(local_path(file), std::ios::binary);
    stream->seekg(static_cast<std::streamoff>(offset));
    base::check(stream->good(), ErrorKind::not_found, "file {}: its bytes are missing in {}", file.id, root_.string());
    return stream;
  }

  fs::path local_path(const StoredFile& file) override {
    fs::path path = root_ / file.id.substr(0, 2) / file.id;
    base::check(fs::exists(path), ErrorKind::not_found, "file {}: its bytes are missing in {}", file.id,
                root_.string());
    return path;
  }

  void remove(const std::string& id) override {
    std::error_code ignored;
    fs::remove(root_ / id.substr(0, 2) / id, ignored);
  }

  void sweep(Time before, const std::function<bool(const std::string&)>& known) override {
    std::error_code error;
    for (fs::recursive_directory_iterator entry(root_, fs::directory_options::skip_permission_denied, error), end;
         !error && entry != end; entry.increment(error)) {
      std::error_code gone;
      if (!entry->is_regular_file(gone) || written_at(entry->path()) >= before) continue;
      const std::string name = entry->path().filename().string();
      if (name.find(".partial-") != std::string::npos || !known(name)) fs::remove(entry->path(), gone);
    }
  }

  uint64_t free_bytes() override {
    struct statvfs status {};
    return ::statvfs(root_.c_str(), &status) == 0 ? uint64_t{status.f_bavail} * status.f_frsize : UINT64_MAX;
  }

 private:
  fs::path root_;
};

}  // namespace

std::unique_ptr<FileBackend> folder_backend(const fs::path& root) { return std::make_unique<FolderBackend>(root); }

}  // namespace calotype::store
