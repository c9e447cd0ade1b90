#include "files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace calotype::files {

using base::ErrorKind;

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not hang us
  if (descriptor < 0)
    base::fail(errno == ENOENT || errno == ENOTDIR ? ErrorKind::not_found : ErrorKind::bad_input, "{}: cannot open: {}",
               path.string(), std::strerror(errno));
  struct stat status {};
  const bool usable = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0;
  void* address = MAP_FAILED;
  if (usable) address = ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
  const int error = errno;
  ::close(descriptor);
  base::check(!S_ISDIR(status.st_mode), ErrorKind::bad_input, "{}: is a folder, expected a file", path.string());
  base::check(S_ISREG(status.st_mode), ErrorKind::bad_input, "{}: not an ordinary file", path.string());
  base::check(status.st_size > 0, ErrorKind::corrupt_file, "{}: the file is empty", path.string());
  base::check(address != MAP_FAILED, ErrorKind::internal, "{}: cannot map: {}", path.string(), std::strerror(error));
  const auto size = static_cast<size_t>(status.st_size);
  return std::shared_ptr<const MappedFile>(new MappedFile(path, {static_cast<const std::byte*>(address), size}));
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

void MappedFile::release(std::span<const std::byte> part) const {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace calotype::files
