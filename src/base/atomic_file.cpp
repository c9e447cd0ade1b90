#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace calotype::base {
namespace fs = std::filesystem;
namespace {

ErrorKind kind_of(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR: return ErrorKind::not_found;
    case EACCES:
    case EROFS:
    case EISDIR:
    case EPERM:
    case ENAMETOOLONG:
    case ELOOP:
    case ENXIO:
    case EINVAL: return ErrorKind::bad_input;
    case ENOSPC:
    case EDQUOT: return ErrorKind::disk_full;
    default: return ErrorKind::internal;
  }
}

[[noreturn]] void fail_system(const char* action, const fs::path& path) {
  const int error = errno;
  fail(kind_of(error), "{}: cannot {}: {}", path.string(), action, std::strerror(error));
}

void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // some file systems refuse; the rename itself has happened
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  std::error_code ignored;
  check(!fs::is_directory(path_, ignored), ErrorKind::bad_input, "{}: is a folder, expected a file name to write to",
        path_.string());
  std::string name = path_.string() + ".partial-XXXXXX";
  descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) fail_system("create a file there", path_);
  temporary_ = name;
  const mode_t mask = ::umask(0);  // mkostemp makes 0600; other tools expect the usual permissions
  ::umask(mask);
  ::fchmod(descriptor_, 0666 & ~mask);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_system("write", path_);
    size_ += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_system("sync", path_);
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) fail_system("close", path_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_system("rename into place", path_);
  temporary_.clear();
  sync_folder(path_.parent_path());
}

void write_file(const fs::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

std::string read_file(const fs::path& path, uint64_t limit) {
  // Opening a FIFO that nobody writes to would wait for ever; a pipe with a writer is read to its end.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) fail_system("open", path);
  ::fcntl(descriptor, F_SETFL, 0);
  std::string bytes;
  char buffer[1 << 16];
  ssize_t got = 0;
  while ((got = ::read(descriptor, buffer, sizeof buffer)) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 || bytes.size() + static_cast<size_t>(got) > limit) break;
    bytes.append(buffer, static_cast<size_t>(got));
  }
  const int error = errno;
  ::close(descriptor);
  errno = error;
  if (got < 0) fail_system("read", path);
  check(got == 0, ErrorKind::bad_input, "{}: larger than the {} bytes accepted for such a file", path.string(), limit);
  return bytes;
}

}  // namespace calotype::base
