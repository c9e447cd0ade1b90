#include "train/dataset.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/sha256.h"
#include "files/archives.h"
#include "image/golden_pictures.h"
#include "support/golden.h"
#include "train/picture_check.h"

namespace calotype::train {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using files::zip_of;
using files::ZipPart;
using image::expect_close;
using image::expected;
using image::golden;
using image::RgbImage;

/// The golden pictures have 37×29 pixels: small enough for tests, too small for training.
DatasetOptions small_options(const fs::path& data, const fs::path& unpack_folder = {}) {
  return {.data = data, .unpack_folder = unpack_folder, .min_side = 16};
}

/// Opens archive bytes that lie in `folder` as data.zip.
Dataset opened(const test::TemporaryFolder& folder, const std::string& bytes, DatasetOptions options = {}) {
  base::write_file(folder / "data.zip", bytes);
  options.data = folder / "data.zip";
  options.unpack_folder = folder / "unpacked";
  options.min_side = 16;
  return open_dataset(options);
}

Dataset opened(const std::string& bytes, const DatasetOptions& options = {}) {
  const test::TemporaryFolder folder;
  return opened(folder, bytes, options);
}

std::string refusal(ErrorKind kind, const std::function<void()>& work) { return image::error_of(kind, work); }

const FileReport& report_on(const Dataset& data, const std::string& name) {
  static const FileReport none{.reason = "not in the report"};
  for (const FileReport& file : data.files)
    if (file.name == name) return file;
  ADD_FAILURE() << name << " is not in the report\n" << dataset_text(data);
  return none;
}

const Example& example(const Dataset& data, const std::string& name) {
  static const Example none;
  for (const Example& one : data.examples)
    if (one.name == name) return one;
  ADD_FAILURE() << name << " is not used\n" << dataset_text(data);
  return none;
}

std::string warnings_of(const Dataset& data, const std::string& name) {
  std::string all;
  for (const std::string& warning : report_on(data, name).warnings) all += warning + "; ";
  return all;
}

void expect_warning(const Dataset& data, const std::string& name, const std::string& words) {
  EXPECT_NE(warnings_of(data, name).find(words), std::string::npos) << name << ": " << warnings_of(data, name);
}

RgbImage noise() { return expected("noise_43x31", 43, 31); }

/// Colours that change by chance from cell to cell, each 8×8 pixels: sharp, and unlike any other seed.
RgbImage cells(int width, int height, uint32_t seed) {
  RgbImage out{width, height, {}};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) {
        uint32_t h = seed * 2654435761u + static_cast<uint32_t>((y / 8 * 1000 + x / 8) * 3 + c);
        h = (h ^ h >> 15) * 2246822519u;
        h = (h ^ h >> 13) * 3266489917u;
        out.pixels.push_back(static_cast<uint8_t>(h >> 24));
      }
  return out;
}

std::string png(const RgbImage& picture) { return image::encode(picture); }

struct Expectation {
  const char* name;
  const char* reason;  ///< part of it; nullptr: used
};

/// User-demand's list of hostile files, in the order in which an archive may have them.
std::vector<ZipPart> hostile_parts() {
  const std::string jpeg = golden("photo_jpeg.jpeg");
  return {{.name = "notes.md", .content = "# Notes"},
          {.name = "b/a.png", .content = golden("colour.png")},
          {.name = "b/a.txt",
           .content = "\xEF\xBB\xBF"
                      "a photo of TOK\r\non a table\r\n"},
          {.name = "turned.jpeg", .content = golden("turned_6.jpeg")},
          {.name = "turned.txt", .content = "caf\xE9 TOK"},
          {.name = "cmyk.jpeg", .content = golden("cmyk.jpeg")},
          {.name = "grey16.png", .content = golden("grey16.png")},
          {.name = "grey.jpeg", .content = golden("grey.jpeg")},
          {.name = "alpha.png", .content = golden("rgba.png")},
          {.name = "moving.gif", .content = golden("moving.gif")},
          {.name = "moving.webp", .content = golden("moving.webp")},
          {.name = "avif", .content = golden("photo_avif.avif")},  // without any extension
          {.name = "really a webp.png", .content = golden("photo_webp.webp")},
          {.name = "Photo.PNG", .content = png(cells(64, 48, 1))},
          {.name = "photo.png", .content = png(cells(64, 48, 2))},
          {.name = "Photo.txt", .content = "TOK one"},
          {.name = "photo.txt", .content = "TOK two"},
          {.name = "empty caption.png", .content = png(cells(48, 48, 3))},
          {.name = "empty caption.txt", .content = ""},
          {.name = "\xEF\xBB\xBFodd \x01 \xE2\x80\xAE.png", .content = png(cells(48, 48, 4))},
          {.name = "truncated.jpg", .content = jpeg.substr(0, jpeg.size() / 2)},
          {.name = "text.jpg", .content = "hello"},
          {.name = "page.jpg", .content = "<!DOCTYPE html><html>"},
          {.name = "bomb.png", .content = golden("bomb.png")},
          {.name = "empty.png", .content = ""},
          {.name = "tall.png", .content = golden("tall.png")},
          {.name = "nested.zip", .content = zip_of({{.name = "x.png", .content = golden("colour.png")}})},
          {.name = "copy.png", .content = golden("colour.png")},
          {.name = "alone.txt", .content = "a caption"},
          {.name = "text.txt", .content = "a caption of a bad picture"},
          {.name = "long.txt", .content = std::string(70'000, 'a')},
          {.name = "long.png", .content = png(cells(48, 48, 5))},
          {.name = "../evil.png", .content = golden("colour.png")},
          {.name = "/etc/evil.png", .content = golden("colour.png")},
          {.name = "secret.png", .content = golden("colour.png"), .flags = 1},
          {.name = "link.png", .content = "/etc/passwd", .attributes = 0120777u << 16},
          {.name = "broken.png", .content = golden("grey.png"), .checksum = 1},
          {.name = "__MACOSX/b/._a.png", .content = "mac"},
          {.name = "b/._a.png", .content = "mac"},
          {.name = ".DS_Store", .content = "mac"},
          {.name = "b/Thumbs.db", .content = "windows"},
          {.name = "b/.hidden/x.png", .content = golden("colour.png")}};
}

constexpr Expectation kHostile[] = {{"b/a.png", nullptr},
                                    {"b/a.txt", nullptr},
                                    {"turned.jpeg", nullptr},
                                    {"turned.txt", nullptr},
                                    {"cmyk.jpeg", nullptr},
                                    {"grey16.png", nullptr},
                                    {"grey.jpeg", nullptr},
                                    {"alpha.png", nullptr},
                                    {"moving.gif", nullptr},
                                    {"moving.webp", nullptr},
                                    {"avif", nullptr},
                                    {"really a webp.png", nullptr},
                                    {"Photo.PNG", nullptr},
                                    {"photo.png", nullptr},
                                    {"Photo.txt", nullptr},
                                    {"photo.txt", nullptr},
                                    {"empty caption.png", nullptr},
                                    {"empty caption.txt", nullptr},
                                    {"\uFEFFodd \\x01 \\xe2\\x80\\xae.png", nullptr},
                                    {"long.png", nullptr},
                                    {"notes.md", "not a picture (starts with \"# Notes\")"},
                                    {"truncated.jpg", "damaged or incomplete JPEG"},
                                    {"text.jpg", "not a picture (starts with \"hello\")"},
                                    {"page.jpg", "a web page"},
                                    {"bomb.png", "20000×20000 pixels"},
                                    {"empty.png", "empty"},
                                    {"tall.png", "1×65535 pixels, expected at least 16"},
                                    {"nested.zip", "zip archive inside"},
                                    {"copy.png", "the same file as b/a.png"},
                                    {"alone.txt", "no usable picture"},
                                    {"text.txt", "no usable picture"},
                                    {"long.txt", "larger than"},
                                    {"../evil.png", "leads out of the archive"},
                                    {"/etc/evil.png", "absolute"},
                                    {"secret.png", "encrypted"},
                                    {"link.png", "link"},
                                    {"broken.png", "damaged (ZIP bad CRC"}};

TEST(DatasetHostile, GoodFilesAreUsedAndBadOnesHaveTheirReason) {
  const Dataset data = opened(zip_of(hostile_parts()), {.trigger = "TOK"});
  EXPECT_EQ(data.files.size(), std::size(kHostile)) << dataset_text(data);
  for (const Expectation& want : kHostile) {
    const FileReport& file = report_on(data, want.name);
    EXPECT_EQ(file.used, want.reason == nullptr) << want.name << ": " << file.reason;
    EXPECT_EQ(file.used, file.reason.empty());
    EXPECT_NE(file.reason.find(want.reason ? want.reason : ""), std::string::npos) << want.name << ": " << file.reason;
    EXPECT_EQ(base::printable(file.reason, 10'000), file.reason);
  }
  EXPECT_EQ(data.examples.size(), 15u);

  EXPECT_EQ(example(data, "b/a.png").captions, std::vector<std::string>{"a photo of TOK on a table"});
  EXPECT_EQ(example(data, "turned.jpeg").captions, std::vector<std::string>{"café TOK"});
  EXPECT_EQ(example(data, "Photo.PNG").captions, std::vector<std::string>{"TOK one"});
  EXPECT_EQ(example(data, "photo.png").captions, std::vector<std::string>{"TOK two"});
  EXPECT_EQ(example(data, "empty caption.png").captions, std::vector<std::string>{"TOK"});
  EXPECT_EQ(example(data, "grey.jpeg").captions, std::vector<std::string>{"TOK"});
  EXPECT_EQ(example(data, "turned.jpeg").width, 16);  // upright: stored as 24×16
  EXPECT_EQ(example(data, "turned.jpeg").height, 24);

  expect_warning(data, "turned.txt", "Windows-1252");
  expect_warning(data, "empty caption.txt", "empty");
  expect_warning(data, "moving.gif", "3 frames, only the first");
  expect_warning(data, "moving.webp", "3 frames, only the first");
  expect_warning(data, "alpha.png", "alpha");
  expect_warning(data, "grey.jpeg", "no usable caption file");
  expect_warning(data, "long.png", "no usable caption file");
  expect_warning(data, "b/a.png", "smallest resolution, 512²");
  EXPECT_EQ(warnings_of(data, "b/a.txt"), "");
}

TEST(DatasetHostile, NoForeignNameBecomesAPath) {
  const test::TemporaryFolder folder;
  const Dataset data = opened(folder, zip_of(hostile_parts()));
  size_t files = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder.path())) {
    if (entry.path() == folder / "data.zip" || entry.path() == folder / "unpacked") continue;
    ++files;
    const std::string name = entry.path().filename().string();
    EXPECT_EQ(entry.path().parent_path(), folder / "unpacked");
    EXPECT_EQ(name.find_first_not_of("0123456789abcdef"), 64u) << name;
    EXPECT_EQ(base::sha256_hex(base::read_file(entry.path(), 1 << 20)), name.substr(0, 64));
  }
  EXPECT_GT(files, data.examples.size());
  for (const Example& one : data.examples) EXPECT_EQ(one.file.stem().string(), one.hash);
}

TEST(DatasetHostile, AllBadSaysWhyInOneSentence) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<ZipPart> parts;
  for (int i = 0; i < 12; ++i)
    parts.push_back({.name = "notes" + std::to_string(10 + i) + ".md", .content = "# Notes"});
  parts.push_back({.name = "thumb.png", .content = png(cells(32, 15, 1))});
  parts.push_back({.name = "speck.png", .content = png(cells(15, 15, 1))});
  parts.push_back({.name = "lone.txt", .content = "caption"});
  const std::string message = refusal(ErrorKind::bad_input, [&] { opened(zip_of(parts)); });
  EXPECT_NE(message.find("data.zip: none of 15 files can be used: 12 are not pictures (first: notes10.md), 2 are below "
                         "16 pixels (first: speck.png, 15×15), 1 is a caption without usable picture (lone.txt)"),
            std::string::npos)
      << message;
  EXPECT_EQ(base::printable(message, 10'000), message);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(DatasetHostile, NothingInIt) {
  EXPECT_NE(refusal(ErrorKind::bad_input, [] { opened(zip_of({})); }).find("holds no files, expected pictures"),
            std::string::npos);
  const std::string hidden = zip_of({{.name = ".DS_Store", .content = "x"}});
  EXPECT_NE(refusal(ErrorKind::bad_input, [&] { opened(hidden); }).find("no files but hidden ones"), std::string::npos);
}

TEST(DatasetHostile, WrongPathsAndOptions) {
  const test::TemporaryFolder folder;
  base::write_file(folder / "picture.png", golden("colour.png"));
  base::write_file(folder / "data.zip", zip_of({{.name = "a.png", .content = golden("colour.png")}}));
  const auto refused = [&](ErrorKind kind, const DatasetOptions& options, const char* words) {
    const std::string message = refusal(kind, [&] { open_dataset(options); });
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  refused(ErrorKind::not_found, {.data = folder / "nowhere"}, "no such file or folder");
  refused(ErrorKind::bad_input, {.data = folder / "picture.png", .unpack_folder = folder / "u"},
          "this is a PNG picture");
  refused(ErrorKind::bad_input, {.data = folder / "data.zip"}, "needs a folder to unpack");
  refused(ErrorKind::bad_input, {.data = folder / "data.zip", .unpack_folder = folder / "picture.png"},
          "cannot create this folder");
  refused(ErrorKind::bad_input, {.data = folder.path(), .resolutions = {}}, "resolution");
  refused(ErrorKind::bad_input, {.data = folder.path(), .resolutions = {512, 8}}, "resolution 8");
  refused(ErrorKind::bad_input, {.data = folder.path(), .min_side = 8}, "at least 16");
  refused(ErrorKind::bad_input, {.data = folder.path(), .trigger = "a\nb"}, "trigger");
  refused(ErrorKind::bad_input, {.data = folder.path(), .trigger = "\xFF"}, "trigger");
}

/// What is independent of where the files lie.
std::string described(const Dataset& data) {
  nlohmann::json json = dataset_json(data);
  for (nlohmann::json& one : json["examples"]) one.erase("file"), one.erase("mask");
  return json.dump(1);
}

TEST(Dataset, IsTheSameFromFolderZipAndTarInAnyOrder) {
  const std::vector<std::pair<std::string, std::string>> contents = {
      {"a.png", png(cells(64, 48, 1))}, {"sub/b.jpeg", golden("turned_6.jpeg")}, {"sub/b.txt", "two"}, {"a.txt", "one"},
      {"notes.md", "# Notes"},          {"a.mask.png", png(cells(64, 48, 9))}};
  const test::TemporaryFolder folder;
  fs::create_directories(folder / "data/sub");
  std::vector<ZipPart> parts;
  std::vector<files::PackedPart> packed;
  for (const auto& [name, content] : contents) {
    base::write_file(folder / ("data/" + name), content);
    parts.insert(parts.begin(), {.name = name, .content = content});
    packed.push_back({.name = "./" + name, .content = content});
  }
  base::write_file(folder / "one.zip", zip_of(parts));
  base::write_file(folder / "two", files::packed(packed, {.gzip = true}));
  const std::string from_folder = described(open_dataset(small_options(folder / "data")));
  EXPECT_EQ(described(open_dataset(small_options(folder / "data/"))), from_folder);
  EXPECT_EQ(described(open_dataset(small_options(folder / "one.zip", folder / "u1"))), from_folder);
  EXPECT_EQ(described(open_dataset(small_options(folder / "two", folder / "u2"))), from_folder);
  EXPECT_NE(from_folder.find("sub/b.jpeg"), std::string::npos);
}

TEST(Dataset, FoldersMayHoldLinksAndPipes) {
  const test::TemporaryFolder folder, elsewhere;
  base::write_file(elsewhere / "real", png(cells(48, 48, 1)));
  fs::create_symlink(elsewhere / "real", folder / "linked.png");  // hubs keep pictures this way
  fs::create_symlink(folder.path(), folder / "loop");
  fs::create_symlink(folder / "nowhere", folder / "broken.png");
  ASSERT_EQ(::mkfifo((folder / "pipe.png").c_str(), 0600), 0);
  const Dataset data = open_dataset(small_options(folder.path()));
  EXPECT_EQ(example(data, "linked.png").width, 48);
  EXPECT_NE(report_on(data, "loop").reason.find("link to a folder"), std::string::npos);
  EXPECT_NE(report_on(data, "broken.png").reason.find("broken link"), std::string::npos);
  EXPECT_NE(report_on(data, "pipe.png").reason.find("pipe"), std::string::npos);
}

TEST(Dataset, TriggerWordAndDefaultCaption) {
  const std::vector<ZipPart> parts = {{.name = "a.png", .content = png(cells(48, 48, 1))},
                                      {.name = "a.txt", .content = "a photo of a cat"},
                                      {.name = "b.png", .content = png(cells(48, 48, 2))},
                                      {.name = "b.txt", .content = "[trigger] one\r\n\r\nTOK two\n"},
                                      {.name = "c.png", .content = png(cells(48, 48, 3))}};
  Dataset data = opened(zip_of(parts), {.trigger = "TOK", .default_caption = "a thing"});
  EXPECT_EQ(example(data, "a.png").captions, std::vector<std::string>{"TOK a photo of a cat"});
  expect_warning(data, "a.txt", "trigger word missing from the caption, put in front");
  EXPECT_EQ(example(data, "b.png").captions, std::vector<std::string>{"TOK one TOK two"});
  EXPECT_EQ(example(data, "c.png").captions, std::vector<std::string>{"TOK a thing"});
  ASSERT_EQ(data.notes.size(), 1u);
  EXPECT_EQ(data.notes[0], "1 of 3 pictures have no usable caption file; their caption is \"TOK a thing\"");

  data = opened(zip_of(parts), {.trigger = "TOK", .caption_lines = true});
  EXPECT_EQ(example(data, "b.png").captions, (std::vector<std::string>{"TOK one", "TOK two"}));
  EXPECT_EQ(example(data, "c.png").captions, std::vector<std::string>{"TOK"});

  data = opened(zip_of({parts[4]}), {});
  EXPECT_EQ(example(data, "c.png").captions, std::vector<std::string>{""});
  EXPECT_EQ(data.notes[0], "no picture has a caption file; every caption is empty");
}

TEST(Dataset, CaptionsAreFoundByStem) {
  const auto picture = [](const char* name, uint32_t seed) -> ZipPart { return {name, png(cells(48, 48, seed))}; };
  const Dataset data = opened(zip_of({picture("a/IMG.JPG", 1),
                                      {.name = "a/img.TXT", .content = "by case"},
                                      picture("x.jpg", 2),
                                      picture("x.png", 3),
                                      {.name = "x.txt", .content = "shared"},
                                      picture("y.tar.png", 4),
                                      {.name = "y.tar.txt", .content = "two dots"},
                                      {.name = "y.txt", .content = "another"}}));
  EXPECT_EQ(example(data, "a/IMG.JPG").captions.front(), "by case");
  EXPECT_EQ(example(data, "x.jpg").captions.front(), "shared");
  EXPECT_EQ(example(data, "x.png").captions.front(), "shared");
  expect_warning(data, "x.png", "shares its name, and so its caption, with x.jpg");
  EXPECT_EQ(warnings_of(data, "x.jpg").find("shares"), std::string::npos);
  EXPECT_EQ(example(data, "y.tar.png").captions.front(), "two dots");
  EXPECT_FALSE(report_on(data, "y.txt").used);
}

TEST(Dataset, RepeatedNamesInAnArchive) {
  const Dataset data = opened(zip_of(
      {{.name = "a.png", .content = png(cells(48, 48, 1))}, {.name = "a.png", .content = png(cells(64, 64, 2))}}));
  ASSERT_EQ(data.examples.size(), 1u);
  EXPECT_EQ(data.examples[0].width, 48);
  EXPECT_NE(data.files[1].reason.find("another file of this name"), std::string::npos);
}

TEST(Dataset, WarnsOfDuplicatesBlurAndStrips) {
  const RgbImage sharp = cells(256, 192, 1);
  RgbImage ramp{256, 192, {}};
  for (int i = 0; i < 256 * 192; ++i) ramp.pixels.insert(ramp.pixels.end(), 3, static_cast<uint8_t>(i % 256));
  const Dataset data = opened(zip_of(
      {{.name = "a.png", .content = png(sharp)},
       {.name = "b.jpg", .content = image::encode(sharp, {.format = image::Format::jpeg, .quality = 60})},
       {.name = "c.webp", .content = image::encode(image::resized(sharp, 200, 150), {.format = image::Format::webp})},
       {.name = "d.png", .content = png(cells(256, 192, 2))},
       {.name = "e.png", .content = png(ramp)},
       {.name = "f.png", .content = png(cells(400, 64, 3))}}));
  expect_warning(data, "b.jpg", "looks almost like a.png");
  expect_warning(data, "c.webp", "looks almost like a.png");
  EXPECT_EQ(warnings_of(data, "a.png").find("almost"), std::string::npos);
  EXPECT_EQ(warnings_of(data, "d.png").find("almost"), std::string::npos);
  EXPECT_EQ(warnings_of(data, "d.png").find("blurred"), std::string::npos);
  expect_warning(data, "e.png", "looks blurred");
  expect_warning(data, "f.png", "6.2 to 1");
}

// Values: numpy, grey 0.299 R + 0.587 G + 0.114 B, the inner pixels' 4-neighbour Laplacian, var(); the second picture
// is the first tiled 25 × 36 times, which is then averaged in 2×2. Sums of 10⁵ terms in another order: 1e-6.
TEST(PictureCheck, SharpnessIsTheVarianceOfTheLaplacian) {
  const RgbImage small = noise();
  EXPECT_NEAR(sharpness(small) / 49597.63065425282, 1, 1e-5);
  RgbImage large{43 * 25, 31 * 36, {}};
  for (int y = 0; y < large.height; ++y)
    for (int tile = 0; tile < 25; ++tile) {
      const auto row = small.pixels.begin() + y % 31 * 43 * 3;
      large.pixels.insert(large.pixels.end(), row, row + 43 * 3);
    }
  EXPECT_NEAR(sharpness(large) / 11350.401325373225, 1, 1e-5);
}

TEST(Dataset, PicturesArriveUprightCroppedAndMirrored) {
  const test::TemporaryFolder folder;
  base::write_file(folder / "noise.png", png(noise()));
  base::write_file(folder / "turned.jpeg", golden("turned_6.jpeg"));
  base::write_file(folder / "rgba.png", golden("rgba.png"));
  const Dataset data = open_dataset(small_options(folder.path()));
  // Pillow: crop to 31×31 around the centre, then Lanczos. JPEG: decoders differ by up to two levels.
  const RgbImage square = load_picture(example(data, "noise.png"), {20, 20});
  expect_close(square, expected("noise_filling_20x20", 20, 20), 0);
  expect_close(load_picture(example(data, "turned.jpeg"), {16, 24}), expected("turned_6", 16, 24), 2);
  expect_close(load_picture(example(data, "rgba.png"), {37, 29}), expected("rgba_on_white", 37, 29), 0);

  const RgbImage mirrored = load_picture(example(data, "noise.png"), {20, 20}, true);
  for (size_t y = 0; y < 20; ++y)
    for (size_t x = 0; x < 20; ++x)
      for (size_t c = 0; c < 3; ++c)
        ASSERT_EQ(mirrored.pixels[(y * 20 + x) * 3 + c], square.pixels[(y * 20 + 19 - x) * 3 + c]);
}

TEST(Dataset, ChangedFilesAreNoticed) {
  const test::TemporaryFolder folder;
  base::write_file(folder / "a.png", png(noise()));
  const Dataset data = open_dataset(small_options(folder.path()));
  base::write_file(folder / "a.png", golden("colour.png"));
  EXPECT_NE(refusal(ErrorKind::conflict,
                    [&] {
                      load_picture(data.examples[0], {16, 16});
                    })
                .find("had 43×31"),
            std::string::npos);
}

/// White on the left half, black on the right.
RgbImage half(int width, int height) {
  RgbImage out{width, height, {}};
  for (int i = 0; i < width * height; ++i)
    out.pixels.insert(out.pixels.end(), 3, i % width < width / 2 ? uint8_t{255} : uint8_t{0});
  return out;
}

TEST(Masks, HaveTheGeometryOfTheirPicture) {
  const test::TemporaryFolder folder;
  base::write_file(folder / "a.png", png(half(128, 64)));
  base::write_file(folder / "a.mask.png", png(half(64, 32)));  // smaller: stretched
  base::write_file(folder / "b.png", png(cells(64, 64, 1)));
  const Dataset data = open_dataset(small_options(folder.path()));
  ASSERT_EQ(data.examples.size(), 2u);
  const Example& a = example(data, "a.png");
  EXPECT_EQ(a.mask.filename(), "a.mask.png");
  EXPECT_EQ(a.mask_hash.size(), 64u);
  for (const Bucket bucket : {Bucket{128, 64}, Bucket{64, 64}, Bucket{32, 16}})
    for (const bool flipped : {false, true}) {
      const RgbImage picture = load_picture(a, bucket, flipped);
      const std::vector<uint8_t> mask = load_mask(a, bucket, flipped);
      ASSERT_EQ(mask.size() * 3, picture.pixels.size());
      // The stretched edge is softer than the picture's, by the pixels that one of the mask covers.
      int different = 0;
      for (size_t i = 0; i < mask.size(); ++i) different += std::abs(mask[i] - picture.pixels[i * 3]) > 10;
      EXPECT_LE(different, bucket.height * 8);
      EXPECT_EQ(mask[0], flipped ? 0 : 255);
    }
  EXPECT_EQ(load_mask(example(data, "b.png"), {48, 32}), std::vector<uint8_t>(48 * 32, 255));
}

TEST(Masks, AreFoundBySuffixAndInTheirFolder) {
  const auto picture = [](const char* name, uint32_t seed) -> ZipPart { return {name, png(cells(48, 48, seed))}; };
  const Dataset data =
      opened(zip_of({picture("a.jpg", 1),
                     picture("A.MASK.png", 2),
                     picture("b.jpg", 3),
                     picture("b-masklabel.png", 4),
                     picture("s/c.jpg", 5),
                     picture("s/masks/c.png", 6),
                     picture("s/masks/lone.png", 7),
                     picture("party/masks/carnival.png", 8),
                     picture("d.jpg", 9),
                     {.name = "d.mask.png", .content = png({48, 48, std::vector<uint8_t>(48 * 48 * 3, 0)})},
                     picture("e.jpg", 10),
                     {.name = "e.mask.png", .content = golden("colour.png").substr(0, 200)},
                     picture("f.mask.png", 11)}));
  EXPECT_EQ(data.examples.size(), 6u) << dataset_text(data);
  for (const char* name : {"a.jpg", "b.jpg", "s/c.jpg"}) EXPECT_FALSE(example(data, name).mask.empty()) << name;
  for (const char* name : {"d.jpg", "e.jpg", "party/masks/carnival.png"})
    EXPECT_TRUE(example(data, name).mask.empty()) << name;
  expect_warning(data, "d.jpg", "all black");
  expect_warning(data, "e.jpg", "cannot be used: damaged");
  for (const char* name : {"s/masks/lone.png", "d.mask.png", "e.mask.png", "f.mask.png"})
    EXPECT_NE(report_on(data, name).reason.find("mask"), std::string::npos) << name;
}

TEST(Dataset, ReportsProgressAndStops) {
  const test::TemporaryFolder folder;
  for (int i = 0; i < 30; ++i)
    base::write_file(folder / fmt::format("{}.png", i), png(cells(48, 48, static_cast<uint32_t>(i))));
  std::vector<base::ProgressEvent> events;
  open_dataset(small_options(folder.path()), [&](const base::ProgressEvent& event) { events.push_back(event); });
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events.front().stage, "check");
  EXPECT_EQ(events.front().done, 0);
  EXPECT_EQ(events.back().done, 30);
  EXPECT_EQ(events.back().total, 30);

  base::CancelToken cancel;
  const auto stop = [&](const base::ProgressEvent&) { cancel.request(); };
  refusal(ErrorKind::canceled, [&] { open_dataset(small_options(folder.path()), stop, &cancel); });
}

TEST(Dataset, ReportsForPeopleAndPrograms) {
  const Dataset data = opened(zip_of(hostile_parts()), {.trigger = "TOK"});
  const std::string text = dataset_text(data);
  EXPECT_TRUE(text.starts_with("15 pictures for training; 20 of 37 files are used\n")) << text;
  for (const char* line :
       {"  turned.jpeg: 16×24 pixels, trained at 16×16\n", "    \"café TOK\"\n", "not used:\n",
        "  bomb.png: 20000×20000 pixels", "warnings:\n", "notes:\n", "  5 hidden or system files are ignored\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  const nlohmann::json json = dataset_json(data);
  EXPECT_EQ(json["examples"].size(), 15u);
  EXPECT_EQ(json["files"].size(), 37u);
  EXPECT_NO_THROW(json.dump());  // all of it is valid UTF-8
}

}  // namespace
}  // namespace calotype::train
