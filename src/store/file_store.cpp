#include "store/file_store.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "hub/signature.h"
#include "store/content_hash.h"
#include "store/database.h"
#include "store/file_backend.h"
#include "store/ids.h"
#include "store/page.h"

namespace calotype::store {
namespace fs = std::filesystem;
using base::ErrorKind;
namespace {

constexpr size_t kBlock = 256 << 10;
constexpr size_t kNameBytes = 200;
constexpr Time kSweepAge = 24 * 3600 * kSecond;  // an upload may take hours
constexpr Time kSweepEvery = 3600 * kSecond;
constexpr std::array kPurposes = {FilePurpose::upload, FilePurpose::output, FilePurpose::weights, FilePurpose::preview};

constexpr std::string_view kColumns =
    "id, name, content_type, size, sha256, md5, metadata, created_at, expires_at, token, purpose, job, "
    "created_at AS page_key, id AS page_id";

StoredFile read(const Row& row) {
  StoredFile file{.id = row.text("id"),
                  .name = row.text("name"),
                  .content_type = row.text("content_type"),
                  .size = static_cast<uint64_t>(row.integer("size")),
                  .sha256 = row.text("sha256"),
                  .md5 = row.text("md5"),
                  .metadata = row.json("metadata"),
                  .created_at = row.integer("created_at"),
                  .expires_at = row.maybe_integer("expires_at"),
                  .token = row.text("token")};
  for (const FilePurpose purpose : kPurposes)
    if (row.text("purpose") == name(purpose)) file.purpose = purpose;
  file.job = row.text("job");
  return file;
}

// Again after a commit whose answer was lost: nothing happens.
void insert(Session& session, const StoredFile& f) {
  execute(
      session,
      "INSERT INTO files (id, name, content_type, size, sha256, md5, metadata, created_at, expires_at, token, purpose, "
      "job) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
      {f.id, f.name, f.content_type, static_cast<int64_t>(f.size), f.sha256, f.md5, dump(f.metadata), f.created_at,
       value_or_null(f.expires_at), f.token, std::string(name(f.purpose)), f.job});
}

/// The last part of a path of any system, without what could break a header or a terminal.
std::string safe_name(std::string_view name) {
  name.remove_prefix(std::min(name.size(), name.find_last_of("/\\") + 1));
  std::string safe = clean_text(name);
  for (char& c : safe)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F || c == '"') c = '_';
  if (safe.size() > kNameBytes) {  // the end tells the type
    size_t from = safe.size() - kNameBytes;
    while ((static_cast<unsigned char>(safe[from]) & 0xC0) == 0x80) ++from;
    safe.erase(0, from);
  }
  return safe.empty() || safe == "." || safe == ".." ? "file" : safe;
}

std::string safe_content_type(const std::string& type) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$&^_.+-/;= ").find(c) != std::string_view::npos;
  };
  const size_t slash = type.find('/');
  const bool ok = type.size() <= 127 && std::ranges::all_of(type, allowed) && slash != std::string::npos && slash > 0 &&
                  slash + 1 < type.size() && std::ranges::count(type, '/') == 1;
  return ok ? type : "application/octet-stream";
}

/// Bytes that an upload may still take.
struct Room {
  uint64_t quota_left;
  uint64_t keep_free;
  FileBackend& backend;

  void check(uint64_t written) const {
    base::check(written <= quota_left, ErrorKind::disk_full,
                "the quota for files is used up; delete files or raise the quota");
    base::check(keep_free == 0 || backend.free_bytes() > keep_free, ErrorKind::disk_full,
                "the disk is nearly full (uploads leave {} MB free); delete files", keep_free >> 20);
  }
};

Conditions valid_now() {
  Conditions conditions;
  return conditions.add("(expires_at IS NULL OR expires_at > ?)", {now()});
}

}  // namespace

std::string_view name(FilePurpose purpose) {
  switch (purpose) {
    case FilePurpose::upload: return "upload";
    case FilePurpose::output: return "output";
    case FilePurpose::weights: return "weights";
    case FilePurpose::preview: return "preview";
  }
  return "upload";
}

FileStore::FileStore(std::shared_ptr<Database> database, const std::string& url, FileStoreOptions options)
    : database_(std::move(database)), options_(std::move(options)) {
  if (url.starts_with("s3://")) {
    backend_ = s3_backend(url, options_);
    return;
  }
  const std::string path = url.starts_with("file://") ? url.substr(7) : url;
  base::check(!path.empty() && path.find("://") == std::string::npos, ErrorKind::bad_input,
              "files: \"{}\" is no store, expected a folder or s3://BUCKET/PREFIX?endpoint=URL", base::printable(url));
  backend_ = folder_backend(path);
}

FileStore::~FileStore() = default;

StoredFile FileStore::put(const NewFile& about, std::istream& bytes) {
  StoredFile file{.id = new_id(),
                  .name = safe_name(about.name),
                  .content_type = safe_content_type(about.content_type),
                  .metadata = about.metadata,
                  .created_at = now(),
                  .expires_at = about.expires_at,
                  .token = hub::random_token(24),
                  .purpose = about.purpose,
                  .job = clean_text(about.job)};
  const bool upload =
      about.purpose == FilePurpose::upload;  // results of accepted work are kept while there is any space
  const uint64_t used = upload && options_.quota > 0 ? usage().bytes : 0;
  const Room room{.quota_left = !upload || options_.quota == 0 ? UINT64_MAX
                                : options_.quota > used        ? options_.quota - used
                                                               : 0,
                  .keep_free = upload ? options_.keep_free : 0,
                  .backend = *backend_};
  room.check(1);
  base::AtomicFile out(backend_->place(file.id));
  ContentHash hash;
  std::string block(kBlock, '\0');
  while (bytes.read(block.data(), kBlock), bytes.gcount() > 0) {
    const std::string_view piece(block.data(), static_cast<size_t>(bytes.gcount()));
    base::check(out.size() + piece.size() <= about.max_bytes, ErrorKind::bad_input,
                "file: \"{}\" is larger than {} bytes", base::printable(file.name), about.max_bytes);
    room.check(out.size() + piece.size());
    out.write(piece);
    hash.update(piece);
  }
  base::check(!bytes.bad(), ErrorKind::bad_input, "file: \"{}\" could not be read to its end",
              base::printable(file.name));
  file.size = out.size();
  file.sha256 = hash.sha256();
  file.md5 = hash.md5();
  out.commit();
  record(file);
  return file;
}

// Bytes without a row are swept away some day, a row without bytes would be a broken promise: bytes first.
void FileStore::record(const StoredFile& file) {
  try {
    backend_->keep(file);
    database_->transaction([&](Session& session) { insert(session, file); });
  } catch (...) {
    try {
      backend_->remove(file.id);
    } catch (const base::Error&) {  // the first error tells more
    }
    throw;
  }
}

StoredFile FileStore::put(const NewFile& about, std::string_view bytes) {
  std::istringstream stream{std::string(bytes)};
  return put(about, stream);
}

StoredFile FileStore::put_file(const NewFile& about, const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  base::check(stream.is_open() && fs::is_regular_file(path), ErrorKind::not_found, "{}: cannot be read", path.string());
  return put(about, stream);
}

std::optional<StoredFile> FileStore::find(const std::string& id) {
  Connection session = database_->session();
  Conditions conditions = valid_now();
  conditions.add("id = ?", {clean_text(id)});
  const auto row =
      first_row(session, fmt::format("SELECT {} FROM files{}", kColumns, conditions.where()), conditions.values());
  return row ? std::optional(read(*row)) : std::nullopt;
}

std::optional<StoredFile> FileStore::find_by_token(const std::string& token) {
  Connection session = database_->session();
  Conditions conditions = valid_now();
  conditions.add("token = ?", {clean_text(token)});
  const auto row =
      first_row(session, fmt::format("SELECT {} FROM files{}", kColumns, conditions.where()), conditions.values());
  return row ? std::optional(read(*row)) : std::nullopt;
}

Page<StoredFile> FileStore::list(FilePurpose purpose, const PageQuery& query) {
  Connection session = database_->session();
  Conditions conditions = valid_now();
  conditions.add("purpose = ?", {std::string(name(purpose))});
  const RowPage rows = read_page(session, {.columns = std::string(kColumns),
                                           .table = "files",
                                           .key = "created_at",
                                           .id = "id",
                                           .conditions = conditions,
                                           .cursor = query.cursor,
                                           .limit = query.limit});
  Page<StoredFile> page{.next = rows.next, .previous = rows.previous};
  for (const Row& row : rows.rows) page.items.push_back(read(row));
  return page;
}

std::vector<StoredFile> FileStore::of_job(const std::string& job, FilePurpose purpose) {
  Connection session = database_->session();
  Conditions conditions = valid_now();
  conditions.add("job = ? AND job <> '' AND purpose = ?", {clean_text(job), std::string(name(purpose))});
  std::vector<StoredFile> files;
  for (const Row& row :
       rows(session, fmt::format("SELECT {} FROM files{} ORDER BY created_at, id", kColumns, conditions.where()),
            conditions.values()))
    files.push_back(read(row));
  return files;
}

StoredFile FileStore::known(const std::string& id) {
  auto file = find(id);
  base::check(file.has_value(), ErrorKind::not_found, "there is no file {}", base::printable(id));
  return *std::move(file);
}

std::unique_ptr<std::istream> FileStore::open(const std::string& id, uint64_t offset) {
  const StoredFile file = known(id);
  base::check(offset <= file.size, ErrorKind::bad_input, "offset {} is beyond the end of file {} ({} bytes)", offset,
              id, file.size);
  return backend_->open(file, offset);
}

fs::path FileStore::local_path(const std::string& id) { return backend_->local_path(known(id)); }

int64_t FileStore::remove_where(const std::string& condition, const Values& values) {
  Rows gone;
  database_->transaction([&](Session& session) {
    gone = rows(session, fmt::format("SELECT id FROM files WHERE {}", condition), values);
    for (const Row& row : gone) execute(session, "DELETE FROM files WHERE id = ?", {row.text("id")});
  });
  for (const Row& row : gone) backend_->remove(row.text("id"));
  return static_cast<int64_t>(gone.size());
}

void FileStore::remove(const std::string& id) { remove_where("id = ?", {clean_text(id)}); }

void FileStore::expire_of_job(const std::string& job, FilePurpose purpose, Time when) {
  database_->transaction([&](Session& session) {
    execute(session, "UPDATE files SET expires_at = ? WHERE job = ? AND job <> '' AND purpose = ?",
            {when, clean_text(job), std::string(name(purpose))});
  });
}

int64_t FileStore::expire(Time now) {
  const int64_t count = remove_where("expires_at IS NOT NULL AND expires_at <= ?", {now});
  if (Time last = last_sweep_; now - last >= kSweepEvery && last_sweep_.compare_exchange_strong(last, now))
    backend_->sweep(now - kSweepAge, [&](const std::string& id) {
      Connection session = database_->session();
      return first_row(session, "SELECT id FROM files WHERE id = ?", {clean_text(id)}).has_value();
    });
  return count;
}

FileUsage FileStore::usage() {
  Connection session = database_->session();
  const auto row =
      first_row(session, "SELECT COUNT(*) AS files, CAST(COALESCE(SUM(size), 0) AS BIGINT) AS bytes FROM files");
  return {.files = static_cast<uint64_t>(row->integer("files")),
          .bytes = static_cast<uint64_t>(row->integer("bytes")),
          .quota = options_.quota,
          .free = backend_->free_bytes()};
}

void FileStore::check_room() {
  const FileUsage use = usage();
  base::check(options_.quota == 0 || use.bytes < options_.quota, ErrorKind::disk_full,
              "the quota for files is used up ({} of {} MB); delete files or raise the quota", use.bytes >> 20,
              options_.quota >> 20);
  base::check(use.free > options_.keep_free, ErrorKind::disk_full,
              "the disk is nearly full ({} MB free, {} MB are kept free); delete files", use.free >> 20,
              options_.keep_free >> 20);
}

}  // namespace calotype::store
