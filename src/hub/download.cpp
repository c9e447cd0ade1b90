#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/sha256.h"
#include "hub/http_client.h"

namespace calotype::hub {
namespace fs = std::filesystem;

using base::ErrorKind;

namespace {

constexpr size_t kMaxRefusalBytes = 64 << 10;   // kept
constexpr uint64_t kMaxRefusalPage = 1u << 20;  // read
constexpr std::chrono::milliseconds kLongestPause{30'000};

[[noreturn]] void fail_system(const char* action, const fs::path& path) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EDQUOT;
  const bool theirs = error == ENOENT || error == ENOTDIR || error == EACCES || error == EROFS || error == EISDIR;
  base::fail(full     ? ErrorKind::disk_full
             : theirs ? ErrorKind::bad_input
                      : ErrorKind::internal,
             "{}: cannot {}: {}", path.string(), action, std::strerror(error));
}

/// PATH.part: bytes so far and their digest, locked against other processes.
class PartFile {
 public:
  explicit PartFile(const fs::path& path) : path_(path), part_(path.string() + ".part") {
    descriptor_ = ::open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor_ < 0) fail_system("create a file there", part_);
    struct stat mine {
    }, named{};
    const bool locked = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
    // Between open and lock the other process may have finished and renamed the file away.
    const bool current =
        locked && ::fstat(descriptor_, &mine) == 0 && ::stat(part_.c_str(), &named) == 0 && mine.st_ino == named.st_ino;
    if (!current) ::close(descriptor_);
    base::check(current, ErrorKind::conflict, "{}: another process is downloading to this place", part_.string());
  }
  ~PartFile() {
    if (size_ == 0 && !committed_) remove();
    ::close(descriptor_);
  }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  uint64_t size() const { return size_; }
  std::string sha256() const { return hash_.hex(); }

  /// Takes over what an earlier process left.
  void take_over() {
    restart_reading();
    std::vector<char> buffer(1 << 20);
    ssize_t got = 0;
    while ((got = ::pread(descriptor_, buffer.data(), buffer.size(), static_cast<off_t>(size_))) > 0) {
      hash_.update(std::string_view(buffer.data(), static_cast<size_t>(got)));
      size_ += static_cast<uint64_t>(got);
    }
    if (got < 0) fail_system("read", part_);
  }

  void clear() {
    restart_reading();
    if (::ftruncate(descriptor_, 0) != 0) fail_system("shorten", part_);
  }

  void append(std::string_view bytes) {
    hash_.update(bytes);
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(size_));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_system("write", part_);
      size_ += static_cast<uint64_t>(written);
      bytes.remove_prefix(static_cast<size_t>(written));
    }
  }

  void check_room(uint64_t total) const {
    struct statvfs disk {};
    if (total <= size_ || ::fstatvfs(descriptor_, &disk) != 0) return;
    const uint64_t room = static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
    base::check(total - size_ <= room, ErrorKind::disk_full, "{}: {} bytes are still to come, the disk has room for {}",
                path_.string(), total - size_, room);
  }

  void remove() { ::unlink(part_.c_str()); }

  void commit() {
    if (::fsync(descriptor_) != 0) fail_system("sync", part_);
    if (::rename(part_.c_str(), path_.c_str()) != 0) fail_system("rename into place", path_);
    committed_ = true;
    const fs::path folder = path_.parent_path();
    const int opened = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0) return;  // some file systems refuse; the rename itself has happened
    ::fsync(opened);
    ::close(opened);
  }

 private:
  void restart_reading() {
    size_ = 0;
    hash_ = {};
  }

  fs::path path_, part_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
  bool committed_ = false;
  base::Sha256 hash_;
};

/// "bytes 100-199/200" or "bytes */200".
struct ContentRange {
  std::optional<uint64_t> first, total;
};

ContentRange content_range(const HttpResponse& answer) {
  ContentRange range;
  const auto header = answer.header("content-range");
  if (!header || !header->starts_with("bytes ")) return range;
  const std::string text(header->substr(6));
  if (!text.empty() && text[0] >= '0' && text[0] <= '9') range.first = std::strtoull(text.c_str(), nullptr, 10);
  const size_t slash = text.find('/');
  if (slash != std::string::npos && slash + 1 < text.size() && text[slash + 1] != '*')
    range.total = std::strtoull(text.c_str() + slash + 1, nullptr, 10);
  return range;
}

class Downloader {
 public:
  Downloader(const HttpRequest& request, const fs::path& path, const DownloadOptions& options)
      : request_(request), path_(path), options_(options), part_(path) {}

  HttpResponse run();

 private:
  HttpResponse attempt();
  void begin_body(const HttpResponse& head);
  void take(const HttpResponse& head, std::string_view piece);
  HttpResponse fetch_rest();
  bool finish();
  void pause(std::chrono::milliseconds time) const;
  std::chrono::milliseconds pause_before(int failures, const std::optional<HttpResponse>& answer) const;
  uint64_t limit() const { return std::min(options_.size.value_or(UINT64_MAX), request_.max_bytes); }

  const HttpRequest& request_;
  const fs::path& path_;
  const DownloadOptions& options_;
  PartFile part_;
  bool inherited_ = false;  // the first bytes come from an earlier process
  bool begun_ = false;      // this attempt's body was looked at
  uint64_t total_ = 0;
  std::string etag_, refusal_;
  std::chrono::steady_clock::time_point reported_{};
};

void Downloader::begin_body(const HttpResponse& head) {
  begun_ = true;
  const ContentRange range = content_range(head);
  const bool continues = head.status == 206 && range.first == part_.size();
  if (!continues) {
    base::check(head.status != 206, ErrorKind::not_found, "{}: the server sent other bytes than it was asked for",
                shown_url(request_.url));
    part_.clear();
    inherited_ = false;
  }
  total_ = options_.size.value_or(0);
  if (const auto length = head.header("content-length"))
    total_ = part_.size() + std::strtoull(std::string(*length).c_str(), nullptr, 10);
  if (const auto etag = head.header("etag"); etag && !etag->starts_with("W/")) etag_ = *etag;
  base::check(!options_.size || total_ == *options_.size, ErrorKind::corrupt_file,
              "{}: the server announces {} bytes, expected {}", shown_url(request_.url), total_,
              options_.size.value_or(0));
  base::check(total_ <= request_.max_bytes, ErrorKind::bad_input,
              "{}: the server announces {} bytes, at most {} are accepted here", shown_url(request_.url), total_,
              request_.max_bytes);
  part_.check_room(total_);
}

void Downloader::take(const HttpResponse& head, std::string_view piece) {
  if (!head.ok()) {
    refusal_.append(piece.substr(0, kMaxRefusalBytes - std::min(kMaxRefusalBytes, refusal_.size())));
    return;
  }
  if (!begun_) begin_body(head);
  base::check(piece.size() <= limit() - std::min(limit(), part_.size()), ErrorKind::bad_input,
              "{}: more than the {} bytes expected", shown_url(request_.url), limit());
  part_.append(piece);
  const auto now = std::chrono::steady_clock::now();
  if (!options_.on_progress || now - reported_ < std::chrono::milliseconds(100)) return;
  reported_ = now;
  options_.on_progress(part_.size(), total_);
}

HttpResponse Downloader::attempt() {
  HttpRequest request = request_;
  begun_ = false;
  refusal_.clear();
  if (part_.size() > 0) {
    request.headers.emplace_back("Range", fmt::format("bytes={}-", part_.size()));
    if (!etag_.empty()) request.headers.emplace_back("If-Range", etag_);
  }
  request.max_bytes = std::max(request.max_bytes, kMaxRefusalPage);
  HttpResponse answer = send(request, [this](const HttpResponse& head, std::string_view piece) { take(head, piece); });
  if (answer.ok() && !begun_) begin_body(answer);  // an empty file
  answer.body = refusal_;
  return answer;
}

/// False when everything has to be fetched again.
bool Downloader::finish() {
  const bool right_size = !options_.size || part_.size() == *options_.size;
  if (right_size && (options_.sha256.empty() || part_.sha256() == options_.sha256)) {
    if (options_.on_progress) options_.on_progress(part_.size(), part_.size());
    part_.commit();
    return true;
  }
  if (inherited_) {
    part_.clear();
    inherited_ = false;
    return false;
  }
  const std::string found = part_.sha256();
  part_.remove();
  base::fail(ErrorKind::corrupt_file,
             "{}: what {} sent has {} bytes and SHA-256 {}, expected {} bytes and {}; nothing was kept, try again",
             path_.string(), shown_url(request_.url), part_.size(), found,
             options_.size ? std::to_string(*options_.size) : "any number of",
             options_.sha256.empty() ? "any" : options_.sha256);
}

void Downloader::pause(std::chrono::milliseconds time) const {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    if (request_.cancel) request_.cancel->throw_if_requested();
    std::this_thread::sleep_for(std::min<std::chrono::milliseconds>(time, std::chrono::milliseconds(50)));
  }
}

std::chrono::milliseconds Downloader::pause_before(int failures, const std::optional<HttpResponse>& answer) const {
  std::chrono::milliseconds time = options_.pause * (1 << std::min(failures - 1, 10));
  const auto wanted = answer ? answer->header("retry-after") : std::nullopt;
  if (wanted) time = std::chrono::seconds(std::clamp(std::atoi(std::string(*wanted).c_str()), 0, 30));
  return std::min(time, kLongestPause);
}

/// One try. An ok answer means that every byte is here as far as the server knows.
HttpResponse Downloader::fetch_rest() {
  const uint64_t before = part_.size();
  if (inherited_ && options_.size && before >= *options_.size) return {.status = 200, .url = request_.url};
  HttpResponse answer = attempt();
  if (answer.status == 416 && before > 0) {  // nothing lies behind what is here
    const bool complete = content_range(answer).total == before;
    if (!complete) part_.clear();
    base::check(complete, ErrorKind::not_found, "{}: the server has another file than before", shown_url(request_.url));
    answer.status = 206;
  }
  const bool cut = answer.ok() && options_.size && part_.size() < *options_.size;
  base::check(!cut, ErrorKind::not_found, "{}: the connection ended after {} of {} bytes", shown_url(request_.url),
              part_.size(), options_.size.value_or(0));
  return answer;
}

HttpResponse Downloader::run() {
  if (options_.sha256.empty()) {
    part_.clear();
  } else {
    part_.take_over();
    inherited_ = part_.size() > 0;
  }
  for (int failures = 0;;) {
    const uint64_t before = part_.size();
    std::optional<HttpResponse> answer;
    try {
      answer = fetch_rest();
    } catch (const base::Error& error) {
      if (part_.size() > before) failures = 0;
      if (error.kind() != ErrorKind::not_found || failures + 1 >= options_.attempts) throw;
    }
    if (answer && answer->ok()) {
      if (finish()) return *std::move(answer);
      continue;
    }
    ++failures;
    const bool temporary = !answer || answer->status == 429 || answer->status >= 500;
    if (answer && (!temporary || failures >= options_.attempts)) return *std::move(answer);
    pause(pause_before(failures, answer));
  }
}

}  // namespace

HttpResponse download(const HttpRequest& request, const fs::path& path, const DownloadOptions& options) {
  return Downloader(request, path, options).run();
}

}  // namespace calotype::hub
