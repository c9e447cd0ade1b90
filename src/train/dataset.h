// Pictures with captions for training, from a zip, tar or folder: everything is looked at before the first step, and
// every file that was found has a line in the report.
//
//   const Dataset data = open_dataset({.data = "photos.zip", .unpack_folder = "run/pictures", .trigger = "TOK"});
//   const image::RgbImage picture = load_picture(data.examples[0], data.examples[0].buckets[0]);
//
// Picture NAME.jpg takes its caption from NAME.txt or NAME.caption beside it and its mask (white: learn this) from
// NAME.mask.png, NAME-masklabel.png or masks/NAME.png. What a file is decides its content; only captions are known by
// their extension. The check decodes every picture once, on all threads of LibTorch; pictures are not kept. Functions
// are thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "files/archive.h"
#include "image/rgb_image.h"
#include "train/buckets.h"

namespace calotype::train {

struct DatasetOptions {
  std::filesystem::path data;           ///< zip, tar, tar.gz, or a folder; both are searched with their subfolders
  std::filesystem::path unpack_folder;  ///< where an archive's files go, named by their SHA-256; created
  std::string trigger;                  ///< word that will stand for what is learned, for example "TOK"; "": none
  std::vector<int> resolutions = {512, 768, 1024};  ///< each picture has a bucket of at most r² pixels for each r
  int multiple = 16;                                ///< sides of buckets are multiples of this (2 × the VAE's factor)
  bool caption_lines = false;        ///< each line of a caption file is an alternative; else the file is one caption
  int min_side = 64;                 ///< pixels; smaller pictures are not used; at least `multiple`
  int64_t max_pixels = 178'000'000;  ///< width × height; larger pictures are not used
  std::string default_caption;       ///< for pictures without caption file; the trigger is put into it, too
  files::ArchiveLimits limits;
};

struct Example {
  std::string name;                   ///< path inside the data set, printable
  std::filesystem::path file;         ///< in the folder, or in unpack_folder
  std::string hash;                   ///< SHA-256 of the file's bytes, 64 hexadecimal digits
  int width = 0, height = 0;          ///< pixels, upright
  std::vector<std::string> captions;  ///< alternatives, at least one; valid UTF-8; with the trigger
  std::filesystem::path mask;         ///< "": none
  std::string mask_hash;              ///< as hash, "" without mask
  std::vector<Bucket> buckets;        ///< one per resolution, without repetitions; ascending
};

struct FileReport {
  std::string name;  ///< as Example::name; captions and masks have their own lines
  bool used = false;
  std::string reason;                 ///< why it is not used, "" when it is
  std::vector<std::string> warnings;  ///< what to look at before training
};

struct Dataset {
  std::vector<Example> examples;   ///< sorted by name, whatever the order in the archive or on the disk
  std::vector<FileReport> files;   ///< sorted by name
  std::vector<std::string> notes;  ///< about the set as a whole
};

/// Progress stages: "unpack" (files of an archive; the total is unknown, 0) and "check" (pictures).
/// Errors: not_found; bad_input for options, for archives beyond the limits, and when no picture can be used (one
/// sentence with counts and examples of every reason); corrupt_file for an archive that is damaged; canceled.
Dataset open_dataset(const DatasetOptions& options, const base::Progress& report = {},
                     const base::CancelToken* cancel = nullptr);

/// The picture upright in sRGB, transparency on white, cropped around the centre to the bucket's proportions, resized
/// to it, then mirrored if `flipped`. Errors as image::decode(), and conflict when the file has changed since the
/// check.
image::RgbImage load_picture(const Example& example, Bucket bucket, bool flipped = false);

/// height × width bytes, 0: ignore, 255: learn; the geometry of load_picture(), whatever size the mask has (it is
/// stretched to the picture's). 255 everywhere without a mask. Errors as load_picture().
std::vector<uint8_t> load_mask(const Example& example, Bucket bucket, bool flipped = false);

/// The report for people: what is used and how, what is not used and why.
std::string dataset_text(const Dataset& dataset);

/// {"examples": [{"name", "file", "hash", "width", "height", "captions", "mask", "buckets": [[w, h]]}],
///  "files": [{"name", "used", "reason", "warnings"}], "notes": []}
nlohmann::json dataset_json(const Dataset& dataset);

}  // namespace calotype::train
