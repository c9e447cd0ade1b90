// Objects in an S3-compatible store: PREFIX/ab/abcdef…, path style, with local copies in the cache folder.
//
// Objects above kSinglePut go up in parts. A process that is killed between the upload and the row of the database
// leaves an object that nobody knows, or an unfinished upload; the store's own lifecycle rules clear the latter.
#include <sys/stat.h>
#include <utime.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "hub/http_client.h"
#include "store/content_hash.h"
#include "store/file_backend.h"

namespace calotype::store {
namespace fs = std::filesystem;
using base::ErrorKind;
using std::chrono::milliseconds;
namespace {

constexpr uint64_t kSinglePut = 64ull << 20, kPart = 64ull << 20, kMaximumParts = 10'000;
constexpr int kAttempts = 5;

struct Place {
  std::string endpoint, bucket, prefix;  // endpoint without a slash at its end; prefix empty or with one
  hub::AwsKey key;
};

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// s3://bucket/prefix?endpoint=http://host:9000&region=us-east-1
Place parse(const std::string& url) {
  const size_t question = std::min(url.find('?'), url.size());
  const std::string path = url.substr(5, question - 5);
  const size_t slash = std::min(path.find('/'), path.size());
  Place place{.endpoint = variable("AWS_ENDPOINT_URL"), .bucket = path.substr(0, slash)};
  place.prefix = slash < path.size() ? path.substr(slash + 1) : "";
  if (!place.prefix.empty() && place.prefix.back() != '/') place.prefix += '/';
  if (const std::string region = variable("AWS_REGION"); !region.empty()) place.key.region = region;
  for (size_t at = question + 1; at < url.size();) {
    const size_t end = std::min(url.find('&', at), url.size()), equals = std::min(url.find('=', at), end);
    const std::string name = url.substr(at, equals - at),
                      value = equals < end ? url.substr(equals + 1, end - equals - 1) : "";
    base::check(name == "endpoint" || name == "region", ErrorKind::bad_input,
                "files: \"{}\" is no option of s3://, expected endpoint or region", base::printable(name));
    (name == "endpoint" ? place.endpoint : place.key.region) = value;
    at = end + 1;
  }
  if (place.endpoint.empty()) place.endpoint = fmt::format("https://s3.{}.amazonaws.com", place.key.region);
  while (place.endpoint.ends_with('/')) place.endpoint.pop_back();
  place.key.access_key = variable("AWS_ACCESS_KEY_ID");
  place.key.secret_key = variable("AWS_SECRET_ACCESS_KEY");
  place.key.session_token = variable("AWS_SESSION_TOKEN");
  base::check(!place.bucket.empty(), ErrorKind::bad_input, "files: s3:// without a bucket");
  base::check(!place.key.access_key.empty() && !place.key.secret_key.empty(), ErrorKind::bad_input,
              "files: s3:// needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment");
  return place;
}

/// Text between the first <name> and </name>; answers of S3 are too simple for a parser.
std::string element(const std::string& xml, const std::string& name) {
  const size_t from = xml.find("<" + name + ">");
  if (from == std::string::npos) return "";
  const size_t begin = from + name.size() + 2, end = xml.find("</" + name + ">", begin);
  return end == std::string::npos ? "" : xml.substr(begin, end - begin);
}

std::string sha256_of(const fs::path& path, uint64_t offset, uint64_t size) {
  std::ifstream in(path, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(offset));
  ContentHash hash;
  std::string block(256 << 10, '\0');
  while (size > 0 && in.read(block.data(), static_cast<std::streamsize>(std::min<uint64_t>(block.size(), size))),
         in.gcount() > 0) {
    hash.update(std::string_view(block.data(), static_cast<size_t>(in.gcount())));
    size -= static_cast<uint64_t>(in.gcount());
  }
  return hash.sha256();
}

class S3Backend : public FileBackend {
 public:
  S3Backend(Place place, const FileStoreOptions& options)
      : place_(std::move(place)), cache_path_(options.cache), cache_limit_(options.cache_limit) {
    base::check(!cache_path_.empty(), ErrorKind::bad_input, "files: s3:// needs a cache folder");
    cache_ = folder_backend(cache_path_);
  }

  fs::path place(const std::string& id) override { return cache_->place(id); }

  void keep(const StoredFile& file) override {
    const fs::path path = cache_->local_path(file);
    if (file.size <= kSinglePut) {
      expect_ok(ask({.method = "PUT",
                     .url = object_url(file.id),
                     .headers = {{"content-type", file.content_type}, {"x-amz-content-sha256", file.sha256}},
                     .body_file = path,
                     .timeout = {}}),
                "store a file");
    } else {
      put_parts(file, path);
    }
  }

  std::unique_ptr<std::istream> open(const StoredFile& file, uint64_t offset) override {
    auto stream = std::make_unique<std::ifstream>(local_path(file), std::ios::binary);
    stream->seekg(static_cast<std::streamoff>(offset));
    base::check(stream->good(), ErrorKind::not_found, "file {}: its local copy is gone", file.id);
    return stream;
  }

  fs::path local_path(const StoredFile& file) override {
    const fs::path path = cache_->place(file.id);
    // Somebody else of this machine may be fetching it: then there is nothing to do but to wait.
    for (const auto end = std::chrono::steady_clock::now() + std::chrono::hours(1);;) {
      if (fs::exists(path)) {
        ::utime(path.c_str(), nullptr);  // what was used last stays longest
        return path;
      }
      try {
        fetch(file, path);
      } catch (const base::Error& e) {
        if (e.kind() != ErrorKind::conflict || std::chrono::steady_clock::now() > end) throw;
        std::this_thread::sleep_for(milliseconds(200));
      }
    }
  }

  void remove(const std::string& id) override {
    cache_->remove(id);
    const hub::HttpResponse answer = ask({.method = "DELETE", .url = object_url(id)});
    if (answer.status != 404) expect_ok(answer, "delete a file");
  }

  void sweep(Time before, const std::function<bool(const std::string&)>& known) override {
    cache_->sweep(before, known);
    struct Copy {
      Time used;
      uint64_t size;
      fs::path path;
    };
    std::vector<Copy> copies;
    uint64_t total = 0;
    std::error_code error;
    for (fs::recursive_directory_iterator entry(cache_path_, error), end; !error && entry != end;
         entry.increment(error)) {
      struct stat status {};
      if (::stat(entry->path().c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
      copies.push_back({Time{status.st_mtime}, static_cast<uint64_t>(status.st_size), entry->path()});
      total += copies.back().size;
    }
    std::ranges::sort(copies, {}, &Copy::used);
    for (const Copy& copy : copies) {
      if (total <= cache_limit_) break;
      if (copy.path.filename().string().find('.') != std::string::npos) continue;  // under way
      fs::remove(copy.path, error);
      total -= copy.size;
    }
  }

  uint64_t free_bytes() override { return UINT64_MAX; }

 private:
  std::string object_url(const std::string& id) const {
    return fmt::format("{}/{}/{}{}/{}", place_.endpoint, hub::url_encoded(place_.bucket),
                       hub::url_encoded(place_.prefix, "/"), id.substr(0, 2), id);
  }

  /// Tries again what may go better next time: S3 answers 503 when it is asked too often.
  hub::HttpResponse ask(hub::HttpRequest request) const {
    request.aws = place_.key;
    for (int attempt = 1;; ++attempt) {
      try {
        hub::HttpResponse answer = hub::send(request);
        if ((answer.status < 500 && answer.status != 429) || attempt == kAttempts) return answer;
      } catch (const base::Error& e) {
        if (e.kind() != ErrorKind::not_found || attempt == kAttempts) throw;
      }
      std::this_thread::sleep_for(milliseconds(100 << attempt));
    }
  }

  void expect_ok(const hub::HttpResponse& answer, std::string_view action) const {
    if (answer.ok()) return;
    const ErrorKind kind = answer.status == 507                           ? ErrorKind::disk_full
                           : answer.status == 403 || answer.status == 401 ? ErrorKind::bad_input
                           : answer.status == 404                         ? ErrorKind::not_found
                                                                          : ErrorKind::internal;
    base::fail(kind, "bucket {} at {}: cannot {}: status {} {}", place_.bucket, hub::shown_url(place_.endpoint), action,
               answer.status,
               base::printable(element(answer.body, "Code") + " " + element(answer.body, "Message"), 300));
  }

  void fetch(const StoredFile& file, const fs::path& path) const {
    const hub::HttpResponse answer =
        hub::download({.url = object_url(file.id), .timeout = {}, .max_bytes = UINT64_MAX, .aws = place_.key}, path,
                      {.sha256 = file.sha256, .size = file.size});
    expect_ok(answer, "read a file");
  }

  void put_parts(const StoredFile& file, const fs::path& path) const {
    const std::string url = object_url(file.id);
    const hub::HttpResponse begun =
        ask({.method = "POST", .url = url + "?uploads=", .headers = {{"content-type", file.content_type}}});
    expect_ok(begun, "begin an upload");
    const std::string upload = hub::url_encoded(element(begun.body, "UploadId"));
    try {
      const uint64_t part_size = std::max(kPart, file.size / kMaximumParts + 1);
      std::string parts;
      for (uint64_t at = 0, number = 1; at < file.size; at += part_size, ++number) {
        const uint64_t size = std::min(part_size, file.size - at);
        const hub::HttpResponse answer = ask({.method = "PUT",
                                              .url = fmt::format("{}?partNumber={}&uploadId={}", url, number, upload),
                                              .headers = {{"x-amz-content-sha256", sha256_of(path, at, size)}},
                                              .body_file = path,
                                              .body_offset = at,
                                              .body_size = size,
                                              .timeout = {}});
        expect_ok(answer, "store a part of a file");
        parts += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", number,
                             answer.header("etag").value_or(""));
      }
      const hub::HttpResponse done = ask({.method = "POST",
                                          .url = url + "?uploadId=" + upload,
                                          .body = "<CompleteMultipartUpload>" + parts + "</CompleteMultipartUpload>",
                                          .timeout = {}});
      expect_ok(done, "complete an upload");
      // S3 may say 200 first and fail later, in the body.
      base::check(element(done.body, "Code").empty(), ErrorKind::internal, "bucket {}: cannot complete an upload: {}",
                  place_.bucket, base::printable(element(done.body, "Message")));
    } catch (...) {
      try {
        ask({.method = "DELETE", .url = url + "?uploadId=" + upload});
      } catch (const base::Error&) {  // the first error tells more
      }
      throw;
    }
  }

  Place place_;
  fs::path cache_path_;
  uint64_t cache_limit_;
  std::unique_ptr<FileBackend> cache_;
};

}  // namespace

std::unique_ptr<FileBackend> s3_backend(const std::string& url, const FileStoreOptions& options) {
  return std::make_unique<S3Backend>(parse(url), options);
}

}  // namespace calotype::store
