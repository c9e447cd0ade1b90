#include "train/dataset_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/sha256.h"
#include "image/image_codec.h"
#include "train/captions.h"

namespace calotype::train {
namespace fs = std::filesystem;
using base::check;
using base::ErrorKind;
using base::printable;

namespace {

constexpr size_t kSniffed = 512;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

/// What operating systems and programs leave in folders and archives: __MACOSX, ._photo.jpg, .DS_Store, Thumbs.db.
bool is_ignored(std::string_view name) {
  std::string_view part;
  for (size_t at = 0; at <= name.size(); at += part.size() + 1) {
    part = name.substr(at, name.find('/', at) - at);
    if (part.starts_with('.') || part == "__MACOSX") return true;
  }
  return lower(part) == "thumbs.db" || lower(part) == "desktop.ini";
}

bool is_caption_name(std::string_view name) {
  const std::string small = lower(name);
  return small.ends_with(".txt") || small.ends_with(".caption");
}

/// Fills kind and fault from the name and the first bytes.
void classify(FoundFile& file, std::string_view start) {
  file.kind = is_caption_name(file.name) ? FileKind::caption : FileKind::picture;
  if (file.kind == FileKind::caption || image::format_from_content(std::as_bytes(std::span(start)))) return;
  file.kind = FileKind::other;
  if (start.empty()) return file.refuse(Fault::empty, "the file is empty");
  const std::string_view known = files::content_name(start);
  if (files::archive_kind(start))
    return file.refuse(Fault::nested_archive, fmt::format("{} inside the data; unpack it first", known));
  file.refuse(Fault::not_a_picture,
              known.empty() ? fmt::format("not a picture (starts with \"{}\")", printable(start.substr(0, 16)))
                            : fmt::format("not a usable picture but {}", known));
}

std::string first_bytes(const fs::path& path) {
  std::string start(kSniffed, '\0');
  std::ifstream in(path, std::ios::binary);
  check(in.is_open(), ErrorKind::bad_input, "cannot be opened: {}", std::strerror(errno));
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(in.gcount()));
  return start;
}

FoundFile file_in_folder(const fs::path& root, const fs::directory_entry& entry) {
  FoundFile file{.name = entry.path().lexically_relative(root).generic_string(), .path = entry.path()};
  std::error_code error;
  if (fs::is_directory(entry.status(error))) {  // reached through a link: the iterator enters real folders only
    file.refuse(Fault::refused, "a link to a folder, which is not followed");
  } else if (!fs::is_regular_file(entry.status(error))) {
    file.refuse(Fault::refused, "a broken link, device, pipe or socket");
  } else {
    try {
      classify(file, first_bytes(entry.path()));
    } catch (const base::Error& unreadable) {
      file.refuse(Fault::refused, unreadable.what());
    }
  }
  return file;
}

void search_folder(const DatasetOptions& options, FoundFiles& found, const base::CancelToken* cancel) {
  std::error_code error;
  fs::recursive_directory_iterator at(options.data, fs::directory_options::skip_permission_denied, error), end;
  for (; !error && at != end; at.increment(error)) {
    if (cancel) cancel->throw_if_requested();
    const bool folder = !at->is_symlink() && at->is_directory();
    if (is_ignored(at->path().lexically_relative(options.data).generic_string())) {
      if (folder) at.disable_recursion_pending();
      ++found.ignored;
    } else if (!folder) {
      found.files.push_back(file_in_folder(options.data, *at));
    }
  }
  check(!error, ErrorKind::bad_input, "{}: cannot be searched: {}", options.data.string(), error.message());
}

/// A file of the unpack folder, which gets its name when its content is known. Not made durable: every run unpacks
/// anew.
class Unpacked {
 public:
  explicit Unpacked(const fs::path& folder) : folder_(folder), name_((folder / "unpacking-XXXXXX").string()) {
    descriptor_ = ::mkostemp(name_.data(), O_CLOEXEC);
    if (descriptor_ < 0) fail_system("create a file in");
  }
  ~Unpacked() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!name_.empty()) ::unlink(name_.c_str());
  }
  Unpacked(const Unpacked&) = delete;
  Unpacked& operator=(const Unpacked&) = delete;

  void write(std::span<const std::byte> bytes) {
    hash_.update(bytes);
    while (!bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_system("write to");
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }

  fs::path keep(std::string_view extension) {
    const int closed = ::close(descriptor_);
    descriptor_ = -1;
    const fs::path path = folder_ / fmt::format("{}.{}", hash_.hex(), extension);
    if (closed != 0 || ::rename(name_.c_str(), path.c_str()) != 0) fail_system("keep a file in");
    name_.clear();
    return path;
  }

 private:
  [[noreturn]] void fail_system(const char* action) {
    const int error = errno;
    const bool user = error == EACCES || error == EROFS || error == ENOTDIR || error == ENOENT;
    base::fail(error == ENOSPC || error == EDQUOT ? ErrorKind::disk_full
               : user                             ? ErrorKind::bad_input
                                                  : ErrorKind::internal,
               "{}: cannot {} the folder for unpacked pictures: {}", folder_.string(), action, std::strerror(error));
  }

  fs::path folder_;
  std::string name_;
  int descriptor_ = -1;
  base::Sha256 hash_;
};

/// Unpacks the reader's current entry unless its first bytes say that it is of no use.
void unpack(files::ArchiveReader& archive, FoundFile& file, const fs::path& folder) {
  std::string start;
  std::optional<Unpacked> out;
  std::string extension = "txt";
  uint64_t taken = 0;
  const std::string damage = archive.unpack([&](std::span<const std::byte> block) {
    if (taken == 0) {
      start.assign(reinterpret_cast<const char*>(block.data()), std::min(block.size(), kSniffed));
      classify(file, start);
      if (file.fault != Fault::none) file.kind = FileKind::other;
      if (file.kind == FileKind::picture) extension = image::name(*image::format_from_content(block));
      if (file.kind != FileKind::other) out.emplace(folder);
    }
    if (file.kind == FileKind::caption) {  // one byte more than allowed shows that it is too long
      const uint64_t room = kMaxCaptionBytes + 1 - std::min<uint64_t>(taken, kMaxCaptionBytes + 1);
      out->write(block.first(std::min<uint64_t>(block.size(), room)));
    } else if (out) {
      out->write(block);
    }
    taken += block.size();
  });
  if (!damage.empty()) return file.refuse(Fault::damaged, damage);
  if (taken == 0) classify(file, "");
  if (taken == 0 && file.kind == FileKind::caption) out.emplace(folder);
  if (out) file.path = out->keep(extension);
}

void search_archive(const DatasetOptions& options, FoundFiles& found, const base::Progress& report,
                    const base::CancelToken* cancel) {
  check(!options.unpack_folder.empty(), ErrorKind::bad_input,
        "{}: an archive needs a folder to unpack its pictures into, and none was given", options.data.string());
  std::error_code error;
  fs::create_directories(options.unpack_folder, error);
  check(fs::is_directory(options.unpack_folder), ErrorKind::bad_input, "{}: cannot create this folder: {}",
        options.unpack_folder.string(), error.message());
  files::ArchiveReader archive(options.data, options.limits);
  while (const std::optional<files::ArchiveEntry> entry = archive.next()) {
    if (cancel) cancel->throw_if_requested();
    // "../x" starts with a dot but must be reported.
    if (is_ignored(entry->name) && (entry->refusal.empty() || entry->name.find("..") == std::string::npos)) {
      ++found.ignored;
      continue;
    }
    FoundFile file{.name = entry->name};
    if (entry->refusal.empty())
      unpack(archive, file, options.unpack_folder);
    else
      file.refuse(Fault::refused, entry->refusal);
    found.files.push_back(std::move(file));
    if (report) report({.stage = "unpack", .done = static_cast<int64_t>(found.files.size()), .total = 0});
  }
}

/// The first of several entries with one name counts, in archives that have such.
void refuse_repeated_names(std::vector<FoundFile>& files) {
  for (size_t i = 1; i < files.size(); ++i)
    if (files[i].name == files[i - 1].name && files[i].fault == Fault::none)
      files[i].refuse(Fault::duplicate, "the archive has another file of this name, which is used");
}

struct FaultRow {
  Fault fault;
  const char *one, *several;
};

constexpr FaultRow kFaults[] = {
    {Fault::not_a_picture, "is not a picture", "are not pictures"},
    {Fault::nested_archive, "is an archive inside the data", "are archives inside the data"},
    {Fault::refused, "is refused", "are refused"},
    {Fault::empty, "is empty", "are empty"},
    {Fault::damaged, "is damaged", "are damaged"},
    {Fault::too_small, "is below {} pixels", "are below {} pixels"},
    {Fault::too_large, "is too large", "are too large"},
    {Fault::unsupported, "cannot be converted to RGB", "cannot be converted to RGB"},
    {Fault::duplicate, "is there twice", "are there twice"},
    {Fault::bad_caption, "is an unusable caption", "are unusable captions"},
    {Fault::lone_caption, "is a caption without usable picture", "are captions without usable picture"},
    {Fault::lone_mask, "is a mask without usable picture", "are masks without usable picture"},
};

}  // namespace

void FoundFile::refuse(Fault why, std::string sentence, std::string words) {
  fault = why;
  reason = std::move(sentence);
  detail = std::move(words);
}

FoundFiles find_files(const DatasetOptions& options, const base::Progress& report, const base::CancelToken* cancel) {
  FoundFiles found;
  std::error_code error;
  const fs::file_status status = fs::status(options.data, error);
  check(fs::exists(status), ErrorKind::not_found, "{}: no such file or folder", options.data.string());
  if (fs::is_directory(status))
    search_folder(options, found, cancel);
  else
    search_archive(options, found, report, cancel);
  std::ranges::stable_sort(found.files, {}, &FoundFile::name);
  refuse_repeated_names(found.files);
  return found;
}

std::string fault_summary(const std::vector<FoundFile>& files, int min_side) {
  std::string out;
  for (const FaultRow& row : kFaults) {
    const auto has_it = [&](const FoundFile& file) { return file.fault == row.fault; };
    const auto first = std::ranges::find_if(files, has_it);
    if (first == files.end()) continue;
    const auto count = std::ranges::count_if(files, has_it);
    const std::string words = fmt::format(fmt::runtime(count == 1 ? row.one : row.several), min_side);
    const std::string& detail = first->detail.empty() && row.fault == Fault::refused ? first->reason : first->detail;
    out += fmt::format("{}{} {} ({}{}{}{})", out.empty() ? "" : ", ", count, words,
                       count == 1 ? "" : "first: ", printable(first->name), detail.empty() ? "" : ", ",
                       printable(detail, 200));
  }
  return out;
}

}  // namespace calotype::train
