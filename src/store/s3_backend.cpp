#include "base/error.h"
#include "store/file_backend.h"

namespace calotype::store {

std::unique_ptr<FileBackend> s3_backend(const std::string&, const FileStoreOptions&) {
  base::fail(base::ErrorKind::unsupported, "files: s3:// is not supported yet; use a folder");
}

}  // namespace calotype::store
