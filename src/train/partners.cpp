#include "train/partners.h"

#include <map>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace calotype::train {
namespace {

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

/// "a/b.c/photo.tar.jpg" → "a/b.c/photo.tar".
std::string stem_of(const std::string& name) {
  const size_t slash = name.rfind('/'), dot = name.rfind('.');
  const size_t start = slash == std::string::npos ? 0 : slash + 1;
  return dot == std::string::npos || dot <= start ? name : name.substr(0, dot);
}

/// "a/photo" for "a/photo.mask.png" and for "a/photo-masklabel.png", as OneTrainer writes them; else "".
std::string stem_before_suffix(const std::string& name) {
  const std::string stem = stem_of(name), small = lower(stem);
  for (const std::string_view suffix : {".mask", "-masklabel"})
    if (small.ends_with(suffix)) return stem.substr(0, stem.size() - suffix.size());
  return "";
}

/// "a/photo" for "a/masks/photo.png"; "" for files in other folders.
std::string stem_outside_masks(const std::string& name) {
  const std::string stem = stem_of(name);
  const size_t slash = stem.rfind('/');
  if (slash == std::string::npos || slash == 0) return "";
  const size_t before = stem.rfind('/', slash - 1);
  const size_t folder = before == std::string::npos ? 0 : before + 1;
  return lower(stem.substr(folder, slash - folder)) == "masks" ? stem.substr(0, folder) + stem.substr(slash + 1) : "";
}

std::string folder_of(const std::string& name) { return name.substr(0, name.rfind('/')); }

/// Finds a file by its stem; of several with one stem the first.
class Stems {
 public:
  void add(const std::string& stem, size_t file) {
    exact_.emplace(stem, file);
    loose_.emplace(lower(stem), file);
  }
  size_t find(const std::string& stem) const {
    if (const auto found = exact_.find(stem); found != exact_.end()) return found->second;
    const auto found = loose_.find(lower(stem));
    return found == loose_.end() ? kNoFile : found->second;
  }

 private:
  std::unordered_map<std::string, size_t> exact_, loose_;
};

bool is_usable(const FoundFile& file, FileKind kind) { return file.kind == kind && file.fault == Fault::none; }

/// Masks, and the stem of the picture that each belongs to.
std::map<size_t, std::string> find_masks(const std::vector<FoundFile>& files) {
  std::unordered_set<std::string> stems, folders;
  for (const FoundFile& file : files)
    if (file.kind == FileKind::picture && stem_before_suffix(file.name).empty()) stems.insert(stem_of(file.name));
  for (const FoundFile& file : files)
    if (file.kind == FileKind::picture && stems.contains(stem_outside_masks(file.name)))
      folders.insert(folder_of(file.name));
  std::map<size_t, std::string> masks;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!is_usable(files[i], FileKind::picture)) continue;
    std::string stem = stem_before_suffix(files[i].name);
    if (stem.empty() && folders.contains(folder_of(files[i].name))) stem = stem_outside_masks(files[i].name);
    if (!stem.empty()) masks[i] = std::move(stem);
  }
  return masks;
}

void find_shared(std::vector<Partners>& all, const std::vector<FoundFile>& files) {
  std::unordered_map<std::string, size_t> by_stem;
  std::unordered_map<size_t, size_t> by_caption;
  for (Partners& one : all) {
    const auto [stem, first] = by_stem.emplace(stem_of(files[one.picture].name), one.picture);
    if (!first) one.shared_with = stem->second;
    if (one.caption == kNoFile) continue;
    const auto [caption, alone] = by_caption.emplace(one.caption, one.picture);
    if (!alone) one.shared_with = caption->second;
  }
}

}  // namespace

std::vector<Partners> find_partners(const std::vector<FoundFile>& files) {
  const std::map<size_t, std::string> masks = find_masks(files);
  Stems captions, mask_stems;
  for (size_t i = 0; i < files.size(); ++i)
    if (is_usable(files[i], FileKind::caption)) captions.add(stem_of(files[i].name), i);
  for (const auto& [file, stem] : masks) mask_stems.add(stem, file);
  std::vector<Partners> all;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!is_usable(files[i], FileKind::picture) || masks.contains(i)) continue;
    const std::string stem = stem_of(files[i].name);
    all.push_back({.picture = i, .caption = captions.find(stem), .mask = mask_stems.find(stem)});
  }
  find_shared(all, files);
  return all;
}

}  // namespace calotype::train
