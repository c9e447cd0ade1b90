#include "worker/training_data.h"

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/archive.h"
#include "train/captions.h"

namespace calotype::worker {
namespace fs = std::filesystem;
using base::ErrorKind;

namespace {

constexpr size_t kMostNotes = 20;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return std::string(text);
}

std::string lower_case(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

/// Files that archivers of macOS add, in every folder.
bool is_litter(const std::string& name) {
  const fs::path path(name);
  return std::ranges::any_of(path, [](const fs::path& part) {
    return part == "__MACOSX" || part == ".DS_Store" || part.native().starts_with("._");
  });
}

class Unpacking {
 public:
  Unpacking(const fs::path& archive, fs::path folder) : reader_(archive), folder_(std::move(folder)) {}

  TrainingData all(const base::CancelToken* cancel) {
    while (const auto entry = reader_.next()) {
      if (cancel) cancel->throw_if_requested();
      if (is_litter(entry->name)) continue;
      const std::string problem = entry->refusal.empty() ? one(entry->name) : entry->refusal;
      if (!problem.empty()) note(base::printable(entry->name) + ": " + problem);
    }
    return std::move(data_);
  }

 private:
  void note(std::string text) {
    if (data_.notes.size() < kMostNotes) data_.notes.push_back(std::move(text));
  }

  /// Names from the archive are safe to join: the reader refuses all others.
  std::string one(const std::string& name) {
    const fs::path path = folder_ / name;
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    if (error || fs::is_directory(path)) return "its name is that of a folder, or a folder's that of a file";
    const bool caption = lower_case(path.extension().string()) == ".txt";
    return caption ? text(name, path) : picture(path);
  }

  std::string picture(const fs::path& path) {
    base::AtomicFile out(path);
    const std::string damage = reader_.unpack([&](std::span<const std::byte> block) { out.write(block); });
    if (!damage.empty()) return damage;
    out.commit();
    ++data_.pictures;
    return "";
  }

  std::string text(const std::string& name, const fs::path& path) {
    std::string bytes;
    const std::string damage = reader_.unpack([&](std::span<const std::byte> block) {
      if (bytes.size() <= train::kMaxCaptionBytes)
        bytes.append(reinterpret_cast<const char*>(block.data()), block.size());
    });
    if (!damage.empty()) return damage;
    try {
      const train::CaptionText caption = train::decode_caption(bytes);
      if (!caption.note.empty()) note(base::printable(name) + ": " + caption.note);
      base::write_file(path, cleaned_caption(caption.text));
      ++data_.captions;
      return "";
    } catch (const base::Error& problem) {
      if (problem.kind() != ErrorKind::bad_input) throw;
      return problem.what();
    }
  }

  files::ArchiveReader reader_;
  fs::path folder_;
  TrainingData data_;
};

}  // namespace

std::string cleaned_caption(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(",\n", at), text.size());
    const std::string part = trimmed(std::string_view(text).substr(at, end - at));
    if (!part.empty()) out += (out.empty() ? "" : ", ") + part;
    at = end + 1;
  }
  return out;
}

std::string default_caption(const std::string& prefix, const std::string& trigger, const std::string& suffix) {
  std::string out;
  for (const std::string& part : {trimmed(prefix), trimmed(trigger), trimmed(suffix)})
    if (!part.empty()) out += (out.empty() ? "" : " ") + part;
  return out;
}

TrainingData unpack_training_data(const fs::path& archive, const fs::path& folder, const base::CancelToken* cancel) {
  fs::remove_all(folder);
  fs::create_directories(folder);
  try {
    return Unpacking(archive, folder).all(cancel);
  } catch (const base::Error& error) {
    if (error.kind() != ErrorKind::bad_input) throw;
    // The words that scripts of the original trainer look for, then what is wrong.
    std::string what = error.what();
    const std::string path = archive.string() + ": ";
    if (what.starts_with(path)) what.erase(0, path.size());
    base::fail(ErrorKind::bad_input, "input_images must be a zip file of pictures: {}", what);
  }
}

}  // namespace calotype::worker
