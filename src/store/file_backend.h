// Where the bytes of stored files lie. Only src/store includes this.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <istream>
#include <memory>
#include <string>

#include "store/file_store.h"

namespace calotype::store {

class FileBackend {
 public:
  virtual ~FileBackend() = default;

  /// Where a new file is to be written on this machine.
  virtual std::filesystem::path place(const std::string& id) = 0;
  /// The file at place(id) is complete: makes it durable for all machines.
  virtual void keep(const StoredFile& file) = 0;
  virtual std::unique_ptr<std::istream> open(const StoredFile& file, uint64_t offset) = 0;
  virtual std::filesystem::path local_path(const StoredFile& file) = 0;
  virtual void remove(const std::string& id) = 0;
  /// Removes what was written before `before` and is not `known`, and local copies nobody needs.
  virtual void sweep(Time before, const std::function<bool(const std::string& id)>& known) = 0;
  /// Bytes left on the disk that fills up, UINT64_MAX where there is none.
  virtual uint64_t free_bytes() = 0;
};

/// ROOT/ab/abcdef…: two letters of the id make 1296 folders.
std::unique_ptr<FileBackend> folder_backend(const std::filesystem::path& root);
/// See FileStore for the URL.
std::unique_ptr<FileBackend> s3_backend(const std::string& url, const FileStoreOptions& options);

}  // namespace calotype::store
