#include "train/dataset.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "image/image_codec.h"
#include "train/captions.h"
#include "train/dataset_files.h"
#include "train/partners.h"
#include "train/picture_check.h"

namespace calotype::train {
namespace fs = std::filesystem;
using base::check;
using base::ErrorKind;

namespace {

constexpr uint64_t kLargeFile = 64 << 20;  // such are read one at a time, however many threads check

/// Names shown to people and programs: one line of valid UTF-8 whatever the archive holds.
std::string shown(std::string_view name) { return base::printable(name, 1024); }

/// A picture file on its way to an Example.
struct Candidate {
  size_t file = 0, caption = kNoFile, mask = kNoFile;  ///< indices into the found files
  std::string hash, mask_hash;
  PictureCheck picture;
  std::vector<std::string> warnings;
};

/// The found files while they find each other.
struct Workplace {
  const DatasetOptions& options;
  std::vector<FoundFile> files;
  std::vector<std::vector<std::string>> warnings;  ///< of each file
  std::vector<Candidate> candidates;               ///< by name
  std::vector<std::string> notes;
};

void check_options(const DatasetOptions& options) {
  check(options.multiple >= 1 && options.multiple <= 256, ErrorKind::bad_input,
        "bucket sides are to be multiples of {}, expected 1 to 256", options.multiple);
  check(!options.resolutions.empty(), ErrorKind::bad_input, "no training resolution is given, for example 512");
  for (const int resolution : options.resolutions)
    check(resolution >= options.multiple && resolution <= 8192, ErrorKind::bad_input,
          "training resolution {}, expected {} to 8192", resolution, options.multiple);
  check(options.min_side >= options.multiple, ErrorKind::bad_input,
        "pictures down to {} pixels are to be used, expected at least {}, the smallest bucket", options.min_side,
        options.multiple);
  check(!base::first_broken_utf8(options.trigger) && base::printable(options.trigger) == options.trigger,
        ErrorKind::bad_input, "the trigger word is {}, expected one line of UTF-8 of at most 120 bytes",
        base::printable(options.trigger));
  check(!base::first_broken_utf8(options.default_caption), ErrorKind::bad_input,
        "the default caption is not valid UTF-8");
}

void find_candidates(Workplace& work) {
  for (const Partners& partners : find_partners(work.files)) {
    work.candidates.push_back({.file = partners.picture, .caption = partners.caption, .mask = partners.mask});
    if (partners.shared_with != kNoFile)
      work.warnings[partners.picture].push_back(
          fmt::format("shares its name, and so its caption, with {}", shown(work.files[partners.shared_with].name)));
  }
}

/// The sentence of an error without the name that starts it.
std::string without_name(const base::Error& error, std::string_view name) {
  std::string_view text = error.what();
  if (text.starts_with(name) && text.substr(name.size()).starts_with(": ")) text.remove_prefix(name.size() + 2);
  return std::string(text);
}

Fault fault_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::corrupt_file: return Fault::damaged;
    case ErrorKind::unsupported: return Fault::unsupported;
    case ErrorKind::bad_input: return Fault::too_large;  // its first bytes are those of a picture, so nothing else
    default: return Fault::refused;
  }
}

/// A mask that cannot be used costs a warning: the picture is then learned as a whole.
void check_mask(const FoundFile& mask, const DatasetOptions& options, Candidate& candidate) {
  const std::string name = shown(mask.name);
  try {
    const std::string bytes = base::read_file(mask.path, options.limits.entry_bytes);
    const image::RgbImage picture = image::decode(std::as_bytes(std::span(bytes)), name,
                                                  {.max_pixels = options.max_pixels, .background = {0, 0, 0}});
    const double aspects = static_cast<double>(picture.width) * candidate.picture.height /
                           (static_cast<double>(picture.height) * candidate.picture.width);
    if (aspects < 0.98 || aspects > 1.02)
      candidate.warnings.push_back(fmt::format("its mask {} has other proportions and is stretched", name));
    if (std::ranges::all_of(picture.pixels, [](uint8_t value) { return value == 0; })) {
      candidate.warnings.push_back(fmt::format("its mask {} is all black and is not used", name));
      candidate.mask = kNoFile;
      return;
    }
    candidate.mask_hash = base::sha256_hex(bytes);
  } catch (const base::Error& error) {
    candidate.warnings.push_back(fmt::format("its mask {} cannot be used: {}", name, without_name(error, name)));
    candidate.mask = kNoFile;
  }
}

/// Reads, hashes and decodes one picture and its mask; touches nothing but its own file and candidate.
void check_candidate(Workplace& work, Candidate& candidate) {
  const DatasetOptions& options = work.options;
  FoundFile& file = work.files[candidate.file];
  const std::string name = shown(file.name);
  static std::mutex one_large_file;
  std::optional<std::scoped_lock<std::mutex>> alone;
  std::error_code ignored;
  if (const auto size = fs::file_size(file.path, ignored); !ignored && size > kLargeFile) alone.emplace(one_large_file);
  try {
    const std::string bytes = base::read_file(file.path, options.limits.entry_bytes);
    candidate.hash = base::sha256_hex(bytes);
    candidate.picture = check_picture(bytes, name, {.min_side = options.min_side, .max_pixels = options.max_pixels});
    const PictureCheck& picture = candidate.picture;
    if (picture.too_small)
      return file.refuse(Fault::too_small,
                         fmt::format("{}×{} pixels, expected at least {} on each side", picture.width, picture.height,
                                     options.min_side),
                         fmt::format("{}×{}", picture.width, picture.height));
    candidate.warnings = picture.warnings;
    if (candidate.mask != kNoFile) check_mask(work.files[candidate.mask], options, candidate);
  } catch (const base::Error& error) {
    const std::string reason = without_name(error, name);
    file.refuse(fault_of(error.kind()), reason, reason);
  } catch (const std::bad_alloc&) {
    file.refuse(Fault::too_large, "needs more memory than there is", "no memory");
  }
}

void check_candidates(Workplace& work, const base::Progress& report, const base::CancelToken* cancel) {
  const auto total = static_cast<int64_t>(work.candidates.size());
  const int64_t chunk = 4 * std::max(1, at::get_num_threads());
  for (int64_t begin = 0; begin < total; begin += chunk) {
    if (report) report({.stage = "check", .done = begin, .total = total});
    const int64_t end = std::min(total, begin + chunk);
    at::parallel_for(begin, end, 1, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to && !(cancel && cancel->requested()); ++i)
        check_candidate(work, work.candidates[static_cast<size_t>(i)]);
    });
    if (cancel) cancel->throw_if_requested();
  }
  if (report && total > 0) report({.stage = "check", .done = total, .total = total});
  for (Candidate& candidate : work.candidates)
    for (std::string& warning : candidate.warnings) work.warnings[candidate.file].push_back(std::move(warning));
  std::erase_if(work.candidates, [&](const Candidate& c) { return work.files[c.file].fault != Fault::none; });
}

/// Equal bytes: only the first by name is used. Equal looks: a warning. 20,000 pictures are compared in a second.
void find_duplicates(Workplace& work, const base::CancelToken* cancel) {
  std::unordered_map<std::string, size_t> first;
  for (const Candidate& candidate : work.candidates) {
    const auto [other, unique] = first.emplace(candidate.hash, candidate.file);
    if (!unique)
      work.files[candidate.file].refuse(Fault::duplicate,
                                        fmt::format("the same file as {}", shown(work.files[other->second].name)));
  }
  std::erase_if(work.candidates, [&](const Candidate& c) { return work.files[c.file].fault != Fault::none; });
  for (size_t i = 0; i < work.candidates.size(); ++i) {
    if (cancel) cancel->throw_if_requested();
    const auto before = std::span(work.candidates).first(i);
    const auto other = std::ranges::find_if(before, [&](const Candidate& candidate) {
      return nearly_equal(work.candidates[i].picture.print, candidate.picture.print);
    });
    if (other != before.end())
      work.warnings[work.candidates[i].file].push_back(
          fmt::format("looks almost like {}", shown(work.files[other->file].name)));
  }
}

/// Captions of the file, the trigger put in; remarks go to the file's warnings. Empty when it cannot be used.
std::vector<std::string> read_captions(Workplace& work, size_t index) {
  FoundFile& file = work.files[index];
  std::vector<std::string>& warnings = work.warnings[index];
  std::vector<std::string> captions;
  try {
    const CaptionText text = decode_caption(base::read_file(file.path, kMaxCaptionBytes));
    if (!text.note.empty()) warnings.push_back(text.note);
    captions = split_captions(text.text, work.options.caption_lines);
  } catch (const base::Error& error) {
    file.refuse(Fault::bad_caption, without_name(error, file.path.string()));
    return {};
  }
  if (captions.front().empty()) warnings.emplace_back("the caption is empty");
  std::set<std::string> notes;
  for (std::string& caption : captions) {
    const bool blank = caption.empty();
    TriggeredCaption triggered = with_trigger(caption, work.options.trigger);
    caption = std::move(triggered.text);
    if (!triggered.note.empty() && !blank) notes.insert(std::move(triggered.note));
  }
  warnings.insert(warnings.end(), notes.begin(), notes.end());
  return captions;
}

/// Captions by file, each read once however many pictures share it.
std::map<size_t, std::vector<std::string>> read_all_captions(Workplace& work) {
  std::map<size_t, std::vector<std::string>> captions;
  for (const Candidate& candidate : work.candidates)
    if (candidate.caption != kNoFile && !captions.contains(candidate.caption))
      captions[candidate.caption] = read_captions(work, candidate.caption);
  return captions;
}

void note_missing_captions(Workplace& work) {
  const auto lacks = [](const Candidate& c) { return c.caption == kNoFile; };
  const auto missing = std::ranges::count_if(work.candidates, lacks);
  if (missing == 0) return;
  const std::string instead =
      with_trigger(split_captions(work.options.default_caption, false).front(), work.options.trigger).text;
  const std::string words = instead.empty() ? "empty" : fmt::format("\"{}\"", base::printable(instead));
  if (static_cast<size_t>(missing) == work.candidates.size()) {
    work.notes.push_back(fmt::format("no picture has a caption file; every caption is {}", words));
    return;
  }
  work.notes.push_back(fmt::format("{} of {} pictures have no usable caption file; their caption is {}", missing,
                                   work.candidates.size(), words));
  for (const Candidate& candidate : work.candidates)
    if (lacks(candidate)) work.warnings[candidate.file].emplace_back("no usable caption file");
}

std::vector<Example> make_examples(Workplace& work) {
  const auto captions = read_all_captions(work);
  const std::string instead =
      with_trigger(split_captions(work.options.default_caption, false).front(), work.options.trigger).text;
  const int smallest = std::ranges::min(work.options.resolutions);
  std::vector<Example> examples;
  for (Candidate& candidate : work.candidates) {
    const FoundFile& file = work.files[candidate.file];
    const PictureCheck& picture = candidate.picture;
    if (candidate.caption != kNoFile && captions.at(candidate.caption).empty()) candidate.caption = kNoFile;
    if (int64_t{picture.width} * picture.height < int64_t{smallest} * smallest)
      work.warnings[candidate.file].push_back(
          fmt::format("{}×{} pixels are fewer than the smallest resolution, {}²; it is trained at its own size",
                      picture.width, picture.height, smallest));
    examples.push_back(
        {.name = shown(file.name),
         .file = file.path,
         .hash = candidate.hash,
         .width = picture.width,
         .height = picture.height,
         .captions = candidate.caption == kNoFile ? std::vector{instead} : captions.at(candidate.caption),
         .mask = candidate.mask == kNoFile ? fs::path() : work.files[candidate.mask].path,
         .mask_hash = candidate.mask_hash,
         .buckets = buckets_for(picture.width, picture.height, work.options.resolutions, work.options.multiple)});
  }
  return examples;
}

/// What is left without a picture: captions and masks that nobody uses.
void refuse_leftovers(Workplace& work) {
  std::set<size_t> used;
  for (const Candidate& candidate : work.candidates) used.insert({candidate.file, candidate.caption, candidate.mask});
  for (size_t i = 0; i < work.files.size(); ++i) {
    FoundFile& file = work.files[i];
    if (file.fault != Fault::none || used.contains(i)) continue;
    if (file.kind == FileKind::caption)
      file.refuse(Fault::lone_caption, "no usable picture takes its caption from it");
    else
      file.refuse(Fault::lone_mask, "a mask, but no usable picture has this name or it is not used");
  }
}

std::vector<FileReport> report_files(const Workplace& work) {
  std::vector<FileReport> reports;
  for (size_t i = 0; i < work.files.size(); ++i) {
    const FoundFile& file = work.files[i];
    reports.push_back({.name = shown(file.name),
                       .used = file.fault == Fault::none,
                       .reason = file.reason,
                       .warnings = work.warnings[i]});
  }
  return reports;
}

void check_usable(const Workplace& work, int64_t ignored) {
  const std::string source = work.options.data.string();
  check(!work.files.empty(), ErrorKind::bad_input, "{}: holds no files{}, expected pictures", source,
        ignored > 0 ? " but hidden ones" : "");
  if (work.candidates.empty())
    base::fail(ErrorKind::bad_input, "{}: none of {} files can be used: {}", source, work.files.size(),
               fault_summary(work.files, work.options.min_side));
}

}  // namespace

Dataset open_dataset(const DatasetOptions& options, const base::Progress& report, const base::CancelToken* cancel) {
  check_options(options);
  FoundFiles found = find_files(options, report, cancel);
  Workplace work{.options = options, .files = std::move(found.files)};
  work.warnings.resize(work.files.size());

  find_candidates(work);
  check_candidates(work, report, cancel);
  find_duplicates(work, cancel);
  std::vector<Example> examples = make_examples(work);
  refuse_leftovers(work);
  check_usable(work, found.ignored);
  note_missing_captions(work);
  if (found.ignored > 0) work.notes.push_back(fmt::format("{} hidden or system files are ignored", found.ignored));
  return {.examples = std::move(examples), .files = report_files(work), .notes = std::move(work.notes)};
}

namespace {

constexpr int64_t kUsualPixels = image::DecodeOptions{}.max_pixels;

/// The picture as it was checked: of the same size, or it would be trained at the wrong one.
image::RgbImage unchanged(const Example& example) {
  image::RgbImage picture =
      image::decode(example.file, {.max_pixels = std::max(kUsualPixels, int64_t{example.width} * example.height)});
  check(picture.width == example.width && picture.height == example.height, ErrorKind::conflict,
        "{}: has {}×{} pixels, had {}×{} when the data were checked; start again", example.file.string(), picture.width,
        picture.height, example.width, example.height);
  return picture;
}

image::RgbImage mirrored(image::RgbImage picture) {
  const auto width = static_cast<size_t>(picture.width);
  for (size_t y = 0; y < static_cast<size_t>(picture.height); ++y) {
    uint8_t* row = picture.pixels.data() + y * width * 3;
    for (size_t x = 0; x < width / 2; ++x) std::swap_ranges(row + x * 3, row + x * 3 + 3, row + (width - 1 - x) * 3);
  }
  return picture;
}

image::RgbImage placed(const image::RgbImage& picture, Bucket bucket, bool flipped) {
  image::RgbImage filled = image::resized_to_fill(picture, bucket.width, bucket.height);
  return flipped ? mirrored(std::move(filled)) : filled;
}

}  // namespace

image::RgbImage load_picture(const Example& example, Bucket bucket, bool flipped) {
  return placed(unchanged(example), bucket, flipped);
}

std::vector<uint8_t> load_mask(const Example& example, Bucket bucket, bool flipped) {
  const size_t count = static_cast<size_t>(bucket.width) * static_cast<size_t>(bucket.height);
  if (example.mask.empty()) return std::vector<uint8_t>(count, 255);
  const image::RgbImage mask = image::decode(example.mask, {.background = {0, 0, 0}});
  const image::RgbImage fitted = placed(image::resized(mask, example.width, example.height), bucket, flipped);
  std::vector<uint8_t> grey(count);
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* rgb = fitted.pixels.data() + i * 3;
    grey[i] = static_cast<uint8_t>((rgb[0] * 77 + rgb[1] * 150 + rgb[2] * 29 + 128) >> 8);
  }
  return grey;
}

}  // namespace calotype::train
