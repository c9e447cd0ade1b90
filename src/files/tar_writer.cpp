#include "files/tar_writer.h"

#include <archive.h>
#include <archive_entry.h>

#include <fstream>
#include <memory>

#include "base/atomic_file.h"
#include "base/error.h"

namespace calotype::files {
namespace fs = std::filesystem;
using base::ErrorKind;

namespace {

using Writer = std::unique_ptr<archive, decltype(&archive_write_free)>;
using Entry = std::unique_ptr<archive_entry, decltype(&archive_entry_free)>;

/// What a callback of libarchive, which must not throw, hands over to the caller.
struct Target {
  base::AtomicFile file;
  std::exception_ptr failure;
};

la_ssize_t write_block(archive* writer, void* target, const void* bytes, size_t size) {
  auto* out = static_cast<Target*>(target);
  try {
    out->file.write(std::span(static_cast<const std::byte*>(bytes), size));
    return static_cast<la_ssize_t>(size);
  } catch (...) {
    out->failure = std::current_exception();
    archive_set_error(writer, EIO, "write failed");
    return -1;
  }
}

void check_ok(archive* writer, const Target& target, la_ssize_t result, const fs::path& path) {
  if (target.failure) std::rethrow_exception(target.failure);
  base::check(result >= 0, ErrorKind::internal, "{}: {}", path.string(),
              archive_error_string(writer) ? archive_error_string(writer) : "could not be written");
}

Entry header(const TarEntry& entry) {
  Entry head(archive_entry_new(), &archive_entry_free);
  archive_entry_set_pathname(head.get(), entry.name.c_str());
  archive_entry_set_filetype(head.get(), AE_IFREG);
  archive_entry_set_perm(head.get(), 0644);
  archive_entry_set_mtime(head.get(), 0, 0);
  archive_entry_set_size(head.get(), static_cast<la_int64_t>(
                                         entry.file.empty() ? entry.bytes.size() : fs::file_size(entry.file)));
  return head;
}

}  // namespace

void write_tar(const fs::path& path, const std::vector<TarEntry>& entries) {
  Target target{.file = base::AtomicFile(path), .failure = nullptr};
  Writer writer(archive_write_new(), &archive_write_free);
  // pax headers need names in the process's locale, which is C here; this format takes bytes as they are.
  archive_write_set_format_gnutar(writer.get());
  const auto checked = [&](la_ssize_t result) { check_ok(writer.get(), target, result, path); };
  checked(archive_write_open(writer.get(), &target, nullptr, write_block, nullptr));
  std::vector<char> block(1 << 20);
  for (const TarEntry& entry : entries) {
    base::check(entry.file.empty() || fs::is_regular_file(entry.file), ErrorKind::not_found, "{}: no such file",
                entry.file.string());
    checked(archive_write_header(writer.get(), header(entry).get()));
    if (entry.file.empty()) {
      checked(archive_write_data(writer.get(), entry.bytes.data(), entry.bytes.size()));
      continue;
    }
    std::ifstream in(entry.file, std::ios::binary);
    while (in.read(block.data(), static_cast<std::streamsize>(block.size())) || in.gcount() > 0)
      checked(archive_write_data(writer.get(), block.data(), static_cast<size_t>(in.gcount())));
  }
  checked(archive_write_close(writer.get()));
  target.file.commit();
}

}  // namespace calotype::files
