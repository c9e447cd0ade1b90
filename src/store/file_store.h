// Uploads, outputs, previews and weights: bytes in a folder or an S3-compatible store, what is known about them in the
// database.
//
//   StoredFile file = files.put({.name = "out-0.webp", .content_type = "image/webp", .purpose = FilePurpose::output},
//   stream); auto in = files.open(file.id, 0);       // std::istream
//
// A file appears whole or not at all: it is streamed to a temporary name, fsynced, renamed, then recorded. Memory stays
// below a megabyte whatever the size. Thread-safe; several processes may share one store.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <istream>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "store/model_registry.h"
#include "store/values.h"

namespace calotype::store {

class Database;
class FileBackend;

enum class FilePurpose { upload, output, weights, preview };
/// "upload", "output", "weights", "preview".
std::string_view name(FilePurpose purpose);

struct NewFile {
  std::string name = "file";  ///< only the last part counts; control characters and slashes are replaced
  std::string content_type = "application/octet-stream";  ///< anything that is no media type becomes the default
  FilePurpose purpose = FilePurpose::upload;
  std::string job;                  ///< id or ""
  Json metadata = Json::object();   ///< the uploader's own
  std::optional<Time> expires_at;   ///< absent: kept
  uint64_t max_bytes = UINT64_MAX;  ///< Error bad_input "… larger than …" for a longer stream
};

struct StoredFile {
  std::string id, name, content_type;
  uint64_t size = 0;
  std::string sha256, md5;  ///< hexadecimal
  Json metadata;
  Time created_at = 0;
  std::optional<Time> expires_at;
  std::string token;  ///< capability: who knows it may download the file
  FilePurpose purpose = FilePurpose::upload;
  std::string job;
};

struct FileStoreOptions {
  uint64_t quota = 0;                  ///< bytes of all files, 0 = no limit
  uint64_t keep_free = 256ull << 20;   ///< bytes that uploads leave free on the disk
  std::filesystem::path cache;         ///< S3: folder for local copies
  uint64_t cache_limit = 20ull << 30;  ///< S3: bytes of local copies that expire() leaves
};

struct FileUsage {
  uint64_t files = 0, bytes = 0, quota = 0;
  uint64_t free = 0;  ///< on the disk; UINT64_MAX for S3
};

class FileStore {
 public:
  /// `url`: a folder, "file:///folder", or "s3://bucket/prefix?endpoint=http://host:9000&region=us-east-1" with
  /// $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY ($AWS_ENDPOINT_URL and $AWS_REGION stand in for the parameters).
  FileStore(std::shared_ptr<Database> database, const std::string& url, FileStoreOptions options = {});
  ~FileStore();

  /// Errors: disk_full (no space; uploads: also at the quota or below keep_free), bad_input (longer than max_bytes).
  StoredFile put(const NewFile& about, std::istream& bytes);
  StoredFile put(const NewFile& about, std::string_view bytes);
  StoredFile put_file(const NewFile& about, const std::filesystem::path& path);

  /// Expired files are not found.
  std::optional<StoredFile> find(const std::string& id);
  std::optional<StoredFile> find_by_token(const std::string& token);
  /// Newest first.
  Page<StoredFile> list(FilePurpose purpose, const PageQuery& query = {});

  /// Of one job, the oldest first.
  std::vector<StoredFile> of_job(const std::string& job, FilePurpose purpose);

  /// The bytes from `offset` on. Error not_found; bad_input for an offset beyond the end.
  std::unique_ptr<std::istream> open(const std::string& id, uint64_t offset = 0);
  /// A local file with these bytes, to be read only; S3 objects are downloaded into the cache first. It may go away
  /// with the next expire() when the file is removed; open it soon.
  std::filesystem::path local_path(const std::string& id);
  /// Nothing happens when there is no such file.
  void remove(const std::string& id);
  /// Files of a job, for example its previews, are there until `when` only.
  void expire_of_job(const std::string& job, FilePurpose purpose, Time when);

  /// Removes files past their time and what killed processes left behind; returns how many files.
  int64_t expire(Time now);
  FileUsage usage();
  /// Error disk_full when new work should be refused: the quota is reached or less than keep_free is left.
  void check_room();

 private:
  void record(const StoredFile& file);
  StoredFile known(const std::string& id);
  int64_t remove_where(const std::string& condition,
                       const std::vector<std::variant<std::nullptr_t, int64_t, std::string>>& values);

  std::shared_ptr<Database> database_;
  std::unique_ptr<FileBackend> backend_;
  FileStoreOptions options_;
  std::atomic<Time> last_sweep_ = 0;
};

}  // namespace calotype::store
