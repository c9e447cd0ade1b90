#include "files/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "base/error.h"
#include "files/zip_directory.h"

namespace calotype::files {
namespace fs = std::filesystem;
using base::check;
using base::ErrorKind;
using base::fail;
using base::printable;

namespace {

constexpr size_t kTarBlock = 512;
constexpr size_t kBuffer = 1 << 16;
// A damaged entry of a zip costs opening the archive anew; nobody should make us do so thousands of times.
constexpr int kMaxDamaged = 32;

struct Signature {
  std::string_view start, meaning;
};

constexpr Signature kContents[] = {
    {"PK\x03\x04", "a zip archive"},
    {"PK\x05\x06", "an empty zip archive"},
    {"\x1F\x8B", "a gzip file"},
    {"Rar!", "a RAR archive"},
    {"7z\xBC\xAF\x27\x1C", "a 7-Zip archive"},
    {"\xFD"
     "7zXZ",
     "an xz file"},
    {"BZh", "a bzip2 file"},
    {"\x28\xB5\x2F\xFD", "a zstd file"},
    {"MZ", "a Windows program"},
    {"\x7F"
     "ELF",
     "a program"},
    {"\x89PNG", "a PNG picture"},
    {"\xFF\xD8\xFF", "a JPEG picture"},
    {"GIF8", "a GIF picture"},
    {"II*", "a TIFF picture or raw photograph"},
    {"MM\0*", "a TIFF picture or raw photograph"},
    {"8BPS", "a Photoshop file"},
    {"%PDF", "a PDF document"},
    {"version https://git-lfs", "a Git LFS pointer, not the file itself"},
    {"<svg", "an SVG drawing"},
    {"<!", "a web page"},
    {"<html", "a web page"},
    {"<HTML", "a web page"},
    {"<?xml", "an XML text"},
    {"{", "a JSON text"},
};

/// POSIX ustar: the sum of the header's bytes, those of the sum itself taken as blanks, in octal digits.
bool has_tar_checksum(std::string_view block) {
  int64_t claimed = 0, sum = 0;
  for (const char c : block.substr(148, 8))
    if (c >= '0' && c <= '7') claimed = claimed * 8 + (c - '0');
  for (size_t i = 0; i < kTarBlock; ++i) sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(block[i]);
  return sum == claimed;
}

bool is_tar(std::string_view start) {
  if (start.size() < kTarBlock) return false;
  if (start.substr(0, kTarBlock).find_first_not_of('\0') == std::string_view::npos)
    return true;  // empty: end marks only
  return start[0] != '\0' && has_tar_checksum(start.substr(0, kTarBlock));
}

std::string_view name_of(ArchiveKind kind) {
  return kind == ArchiveKind::zip ? "zip" : kind == ArchiveKind::tar ? "tar" : "tar.gz";
}

/// Names become parts of paths in other programs; here they only tell files apart, and still nothing odd passes.
std::string name_refusal(std::string_view name, const ArchiveLimits& limits) {
  if (name.find_first_not_of("./") == std::string_view::npos && name.find("..") == std::string_view::npos)
    return "has no name";
  if (name.size() > limits.name_bytes)
    return fmt::format("has a name of {} bytes, at most {} are accepted", name.size(), limits.name_bytes);
  if (name.starts_with('/')) return "has an absolute name";
  if (name.find('\\') != std::string_view::npos) return "has a name with a backslash";
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (name.size() > 1 && name[1] == ':' && is_letter(name[0])) return "has a name with a drive letter";
  for (size_t at = 0; at <= name.size();) {
    const std::string_view part = name.substr(at, name.find('/', at) - at);
    if (part == "..") return "has a name that leads out of the archive (..)";
    at += part.size() + 1;
  }
  return "";
}

/// Without "." and empty parts: tar writes "./photo.png".
std::string plain_name(std::string_view name) {
  std::string out;
  for (size_t at = 0; at <= name.size();) {
    const std::string_view part = name.substr(at, name.find('/', at) - at);
    if (!part.empty() && part != ".") out.append(out.empty() ? "" : "/").append(part);
    at += part.size() + 1;
  }
  return out;
}

std::string kind_refusal(archive_entry* entry) {
  if (archive_entry_hardlink(entry) || archive_entry_filetype(entry) == AE_IFLNK)
    return "is a link; pack the files themselves";
  if (archive_entry_filetype(entry) != AE_IFREG && archive_entry_filetype(entry) != 0)
    return "is a device, pipe or socket";
  return archive_entry_is_encrypted(entry) ? "is encrypted; pack it without a password" : "";
}

/// libarchive converts names to the thread's character set, and loses them in the "C" locale.
class Utf8Names {
 public:
  Utf8Names() {
    static const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    if (utf8) before_ = ::uselocale(utf8);
  }
  ~Utf8Names() {
    if (before_) ::uselocale(before_);
  }
  Utf8Names(const Utf8Names&) = delete;
  Utf8Names& operator=(const Utf8Names&) = delete;

 private:
  locale_t before_ = nullptr;
};

struct Free {
  void operator()(archive* reader) const { archive_read_free(reader); }
};

/// Closes a descriptor with its last copy.
struct Descriptor {
  int number;
  explicit Descriptor(int n) : number(n) {}
  ~Descriptor() { ::close(number); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

ArchiveBytes open_file(const fs::path& path) {
  const int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not hang us
  if (number < 0)
    fail(errno == ENOENT || errno == ENOTDIR ? ErrorKind::not_found : ErrorKind::bad_input, "{}: cannot open: {}",
         path.string(), std::strerror(errno));
  const auto file = std::make_shared<const Descriptor>(number);
  struct stat status {};
  check(::fstat(number, &status) == 0 && S_ISREG(status.st_mode), ErrorKind::bad_input,
        "{}: not an ordinary file, expected a zip or tar archive", path.string());
  return {static_cast<uint64_t>(status.st_size), [file, path](uint64_t offset, std::span<std::byte> to) {
            while (!to.empty()) {
              const ssize_t got = ::pread(file->number, to.data(), to.size(), static_cast<off_t>(offset));
              if (got < 0 && errno == EINTR) continue;
              check(got >= 0, ErrorKind::internal, "{}: cannot read: {}", path.string(), std::strerror(errno));
              check(got > 0, ErrorKind::conflict, "{}: became shorter while it was read", path.string());
              offset += static_cast<uint64_t>(got);
              to = to.subspan(static_cast<size_t>(got));
            }
          }};
}

ArchiveBytes in_memory(std::span<const std::byte> bytes) {
  return {bytes.size(), [bytes](uint64_t offset, std::span<std::byte> to) {
            std::ranges::copy(bytes.subspan(offset, to.size()), to.begin());
          }};
}

ArchiveKind kind_of(const ArchiveBytes& bytes, const std::string& source) {
  std::string start(std::min<uint64_t>(bytes.size, kTarBlock), '\0');
  bytes.read_at(0, std::as_writable_bytes(std::span(start)));
  const std::optional<ArchiveKind> kind = archive_kind(start);
  if (kind) return *kind;
  check(!start.empty(), ErrorKind::bad_input, "{}: is empty, expected a zip, tar or tar.gz archive", source);
  std::string looks(content_name(start));
  if (looks.empty()) looks = fmt::format("a file that starts with \"{}\"", printable(start.substr(0, 16)));
  fail(ErrorKind::bad_input, "{}: this is {}; expected a zip, tar or tar.gz archive", source, looks);
}

}  // namespace

std::optional<ArchiveKind> archive_kind(std::string_view start) {
  if (start.starts_with("PK\x03\x04") || start.starts_with("PK\x05\x06")) return ArchiveKind::zip;
  if (start.starts_with("\x1F\x8B")) return ArchiveKind::tar_gzip;
  return is_tar(start) ? std::optional(ArchiveKind::tar) : std::nullopt;
}

std::string_view content_name(std::string_view start) {
  using namespace std::string_view_literals;
  if (is_tar(start)) return "a tar archive";
  if (start.starts_with("RIFF") && start.size() >= 12)
    return start.substr(8, 4) == "WEBP" ? "a WebP picture" : "a sound or film";
  if (start.size() >= 12 && start.substr(4, 4) == "ftyp")
    return start.substr(8, 3) == "hei" || start.substr(8, 3) == "avi" ? "a HEIC or AVIF picture" : "a film";
  if (start.starts_with("BM") && start.size() >= 10 && start.substr(6, 4) == "\0\0\0\0"sv) return "a BMP picture";
  const std::string_view text = start.substr(std::min(start.find_first_not_of(" \t\r\n"), start.size()));
  for (const Signature& known : kContents)
    if (text.starts_with(known.start)) return known.meaning;
  return "";
}

class ArchiveReader::State {
 public:
  State(ArchiveBytes bytes, std::string source, const ArchiveLimits& limits)
      : bytes_(std::move(bytes)), source_(std::move(source)), limits_(limits), kind_(kind_of(bytes_, source_)) {
    if (kind_ == ArchiveKind::zip) {
      directory_ = read_zip_directory(bytes_, source_, limits_);
      bytes_.size = directory_.end;  // so that libarchive finds the directory that was checked, and no other
    }
    if (kind_ != ArchiveKind::zip || !directory_.entries.empty()) open();
  }

  ArchiveKind kind() const { return kind_; }

  std::optional<ArchiveEntry> next() {
    if (!reader_) return std::nullopt;  // an empty zip
    if (!content_taken_) drain();
    while (next_header()) {
      content_taken_ = false;
      if (archive_entry_filetype(entry_) != AE_IFDIR) return described();
      drain();  // a folder should have no content
    }
    return std::nullopt;
  }

  std::string unpack(const Sink& sink) {
    content_taken_ = true;
    entry_bytes_ = 0;
    for (;;) {
      const la_ssize_t got = archive_read_data(reader_.get(), buffer_.data(), buffer_.size());
      if (got == 0) return "";
      if (got < 0) return damage(static_cast<int>(got));
      count(static_cast<uint64_t>(got));
      sink(std::span(buffer_).first(static_cast<size_t>(got)));
    }
  }

 private:
  void open() {
    reader_.reset(archive_read_new());
    check(reader_ != nullptr, ErrorKind::out_of_memory, "{}: no memory to read the archive", source_);
    archive* reader = reader_.get();
    if (kind_ == ArchiveKind::zip) archive_read_support_format_zip_seekable(reader);
    if (kind_ != ArchiveKind::zip) archive_read_support_format_tar(reader);
    if (kind_ == ArchiveKind::tar_gzip) archive_read_support_filter_gzip(reader);
    archive_read_set_read_callback(reader, &State::give);
    archive_read_set_seek_callback(reader, &State::seek);
    archive_read_set_callback_data(reader, this);
    position_ = 0;
    if (archive_read_open1(reader) != ARCHIVE_OK) fail_damaged();
    // gzip inside gzip multiplies what two small headers can make us work through.
    check(archive_filter_count(reader) <= 2, ErrorKind::bad_input, "{}: is compressed more than once; pack it again",
          source_);
  }

  bool next_header() {
    const Utf8Names utf8;
    const int status = archive_read_next_header(reader_.get(), &entry_);
    rethrow();
    if (status == ARCHIVE_EOF) {
      check(kind_ != ArchiveKind::zip || index_ == directory_.entries.size(), ErrorKind::corrupt_file,
            "{}: damaged zip archive (only {} of {} entries are there); pack or fetch it again", source_, index_,
            directory_.entries.size());
      return false;
    }
    if (status != ARCHIVE_OK && status != ARCHIVE_WARN) fail_damaged();
    check(++index_ <= static_cast<size_t>(limits_.entries), ErrorKind::bad_input,
          "{}: has more than {} entries; split the archive", source_, limits_.entries);
    check(!archive_entry_size_is_set(entry_) || archive_entry_size(entry_) <= static_cast<int64_t>(limits_.entry_bytes),
          ErrorKind::bad_input, "{}: entry {} unpacks to {}, at most {} are accepted", source_, printable(raw_name()),
          bytes_text(static_cast<uint64_t>(archive_entry_size(entry_))), bytes_text(limits_.entry_bytes));
    return true;
  }

  std::string raw_name() const {
    const char* name = archive_entry_pathname(entry_);
    if (!name) name = archive_entry_pathname_utf8(entry_);
    return name ? name : "";
  }

  ArchiveEntry described() const {
    const std::string name = raw_name();
    ArchiveEntry entry{.name = name, .refusal = name_refusal(name, limits_)};
    if (entry.refusal.empty()) entry = {.name = plain_name(name), .refusal = kind_refusal(entry_)};
    if (entry.refusal.empty() && kind_ == ArchiveKind::zip && index_ <= directory_.entries.size())
      entry.refusal = directory_.entries[index_ - 1].refusal;
    return entry;
  }

  /// Passes over content that nobody asked for. A zip is searched by its directory, a tar must be read.
  void drain() {
    content_taken_ = true;
    entry_bytes_ = 0;
    if (kind_ == ArchiveKind::zip) return;
    for (;;) {
      const void* block = nullptr;
      size_t size = 0;
      la_int64_t offset = 0;
      const int status = archive_read_data_block(reader_.get(), &block, &size, &offset);
      if (status == ARCHIVE_EOF) return;
      if (status != ARCHIVE_OK && status != ARCHIVE_WARN) fail_damaged();
      count(size);
    }
  }

  void count(uint64_t unpacked) {
    entry_bytes_ += unpacked;
    total_ += unpacked;
    check(entry_bytes_ <= limits_.entry_bytes, ErrorKind::bad_input,
          "{}: entry {} unpacks to more than the {} that are accepted", source_, printable(raw_name()),
          bytes_text(limits_.entry_bytes));
    check(total_ <= limits_.total_bytes, ErrorKind::bad_input,
          "{}: unpacks to more than the {} that are accepted; split the archive", source_,
          bytes_text(limits_.total_bytes));
    const uint64_t read = std::min(read_, bytes_.size);
    check(total_ <= limits_.ratio_free || (total_ - limits_.ratio_free) / limits_.ratio <= read, ErrorKind::bad_input,
          "{}: {} unpack to {} so far, more than {} to 1; this looks like an archive made to exhaust its reader",
          source_, bytes_text(read), bytes_text(total_), limits_.ratio);
  }

  /// What is wrong with the current entry of a zip, ready for the next one; an Error for a tar.
  std::string damage(int status) {
    rethrow();
    if (kind_ != ArchiveKind::zip) fail_damaged();
    const std::string what = fmt::format("is damaged ({})", reason());
    check(++damaged_ <= kMaxDamaged, ErrorKind::corrupt_file,
          "{}: more than {} damaged entries (now {}); pack or fetch the archive again", source_, kMaxDamaged,
          printable(raw_name()));
    if (status > ARCHIVE_FATAL) return what;  // the reader goes on by itself
    const size_t done = index_;
    open();
    for (index_ = 0; index_ < done;)
      if (!next_header()) break;
    return what;
  }

  std::string reason() const {
    const char* text = archive_error_string(reader_.get());
    return text ? printable(text, 200) : "no reason given";
  }

  [[noreturn]] void fail_damaged() {
    rethrow();
    fail(ErrorKind::corrupt_file, "{}: damaged or incomplete {} archive ({}); pack or fetch it again", source_,
         name_of(kind_), reason());
  }

  /// An exception of read_at waits here while libarchive, which is C, unwinds.
  void rethrow() {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  static la_ssize_t give(archive* reader, void* self, const void** block) {
    State& state = *static_cast<State*>(self);
    const size_t length = std::min<uint64_t>(state.input_.size(), state.bytes_.size - state.position_);
    try {
      state.bytes_.read_at(state.position_, std::as_writable_bytes(std::span(state.input_).first(length)));
    } catch (...) {
      state.failure_ = std::current_exception();
      archive_set_error(reader, EIO, "cannot be read");
      return ARCHIVE_FATAL;
    }
    state.position_ += length;
    state.read_ += length;
    *block = state.input_.data();
    return static_cast<la_ssize_t>(length);
  }

  static la_int64_t seek(archive*, void* self, la_int64_t offset, int from) {
    State& state = *static_cast<State*>(self);
    const auto size = static_cast<int64_t>(state.bytes_.size);
    const int64_t start = from == SEEK_SET ? 0 : from == SEEK_END ? size : static_cast<int64_t>(state.position_);
    int64_t target = 0;
    if (__builtin_add_overflow(start, offset, &target) || target < 0) return ARCHIVE_FATAL;
    state.position_ = static_cast<uint64_t>(std::min(target, size));
    return static_cast<la_int64_t>(state.position_);
  }

  ArchiveBytes bytes_;
  std::string source_;
  ArchiveLimits limits_;
  ArchiveKind kind_;
  ZipDirectory directory_;
  std::unique_ptr<archive, Free> reader_;
  archive_entry* entry_ = nullptr;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kBuffer), input_ = std::vector<std::byte>(kBuffer);
  uint64_t position_ = 0;  ///< of libarchive in bytes_
  uint64_t read_ = 0, total_ = 0, entry_bytes_ = 0;
  size_t index_ = 0;  ///< entries passed, the current one included
  bool content_taken_ = true;
  int damaged_ = 0;
  std::exception_ptr failure_;
};

ArchiveReader::ArchiveReader(const fs::path& path, const ArchiveLimits& limits)
    : state_(std::make_unique<State>(open_file(path), path.string(), limits)) {}

ArchiveReader::ArchiveReader(std::span<const std::byte> bytes, std::string source, const ArchiveLimits& limits)
    : state_(std::make_unique<State>(in_memory(bytes), std::move(source), limits)) {}

ArchiveReader::~ArchiveReader() = default;

ArchiveKind ArchiveReader::kind() const { return state_->kind(); }

std::optional<ArchiveEntry> ArchiveReader::next() { return state_->next(); }

std::string ArchiveReader::unpack(const Sink& sink) { return state_->unpack(sink); }

}  // namespace calotype::files
