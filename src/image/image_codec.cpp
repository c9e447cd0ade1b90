#include "image/image_codec.h"

#include <vips/vips.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"
#include "image/png_metadata.h"

namespace calotype::image {
namespace {

using base::check;
using base::ErrorKind;
using base::fail;

struct Unref {
  void operator()(void* object) const { g_object_unref(object); }
};
using Picture = std::unique_ptr<VipsImage, Unref>;
using Region = std::unique_ptr<VipsRegion, Unref>;

struct FormatRow {
  Format format;
  std::string_view name, title, media_type;
  int (*load)(void*, size_t, VipsImage**, ...);
};

// Order is that of the enum.
constexpr FormatRow kFormats[] = {
    {Format::png, "png", "PNG", "image/png", vips_pngload_buffer},
    {Format::jpeg, "jpeg", "JPEG", "image/jpeg", vips_jpegload_buffer},
    {Format::webp, "webp", "WebP", "image/webp", vips_webpload_buffer},
    {Format::tiff, "tiff", "TIFF", "image/tiff", vips_tiffload_buffer},
    {Format::gif, "gif", "GIF", "image/gif", vips_gifload_buffer},
    {Format::heif, "heif", "HEIC/AVIF", "image/heif", vips_heifload_buffer},
};

const FormatRow& row(Format format) { return kFormats[static_cast<size_t>(format)]; }

/// First warning of the work under way. Some decoders tell what is wrong only there, libpng for one.
thread_local std::string first_warning;

void keep_warning(const gchar*, GLogLevelFlags, const gchar* text, gpointer) {
  if (text && first_warning.empty() && !std::string_view(text).starts_with("error in tile")) first_warning = text;
}

void start_libvips() {
  static const bool started = [] {
    g_log_set_handler("VIPS", static_cast<GLogLevelFlags>(G_LOG_LEVEL_MASK | G_LOG_FLAG_FATAL | G_LOG_FLAG_RECURSION),
                      keep_warning, nullptr);
    if (vips_init("calotype") != 0) return false;
    vips_concurrency_set(1);  // pictures are decoded side by side by our own threads, if at all
    vips_cache_set_max(0);
    vips_block_untrusted_set(TRUE);
    return true;
  }();
  check(started, ErrorKind::internal, "libvips {} does not start", vips_version_string());
}

/// Runs work that uses libvips, side by side with others. libvips has one error text per process, to which all threads
/// add: failed work is therefore repeated alone, so that its sentence is about this picture and no other.
template <typename Work>
auto with_libvips(Work work) {
  static std::shared_mutex together;
  static std::mutex gate;  // keeps newcomers from overtaking the one that waits to be alone
  start_libvips();
  {
    std::unique_lock entering(gate);
    const std::shared_lock with_others(together);
    entering.unlock();
    try {
      return work();
    } catch (const base::Error&) {
    }
  }
  const std::scoped_lock entering(gate);
  const std::scoped_lock alone(together);
  vips_error_clear();
  first_warning.clear();
  return work();
}

/// Error with libvips' reason: the first line of its error text, without the name of the operation, and a warning.
[[noreturn]] void fail_in_libvips(ErrorKind kind, std::string_view what) {
  std::string_view line = vips_error_buffer();
  line = line.substr(0, line.find('\n'));
  if (const size_t colon = line.find(": "); colon != std::string_view::npos) line.remove_prefix(colon + 2);
  std::string reason = base::printable(line, 200);
  if (!first_warning.empty()) reason += (reason.empty() ? "" : ", ") + base::printable(first_warning, 200);
  fail(kind, "{}: {}", what, reason.empty() ? "no reason given" : reason);
}

/// try_step(vips_cast, in, VIPS_FORMAT_UCHAR) is vips_cast(in, &out, VIPS_FORMAT_UCHAR, nullptr); empty on failure.
template <typename Operation, typename... Args>
Picture try_step(Operation operation, const Picture& in, Args... args) {
  VipsImage* out = nullptr;
  const int failed = operation(in.get(), &out, args..., nullptr);
  return failed ? nullptr : Picture(out);
}

/// One operation of the conversion to sRGB; it fails for reasons that lie in the kind of picture.
template <typename Operation, typename... Args>
Picture step(std::string_view source, Operation operation, const Picture& in, Args... args) {
  Picture out = try_step(operation, in, args...);
  if (!out) fail_in_libvips(ErrorKind::unsupported, fmt::format("{}: cannot be converted to RGB", source));
  return out;
}

using Bytes = std::span<const std::byte>;

std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

std::string damaged(std::string_view source, Format format) {
  return fmt::format("{}: damaged or incomplete {}", source, row(format).title);
}

struct Opened {
  Format format;
  Picture picture;  ///< header read, pixels come on demand from top to bottom
};

Opened open_picture(Bytes bytes, std::string_view source, const DecodeOptions& options) {
  check(!bytes.empty(), ErrorKind::corrupt_file, "{}: is empty, expected a picture", source);
  const std::optional<Format> format = format_from_content(bytes);
  check(format.has_value(), ErrorKind::bad_input,
        "{}: not a picture (starts with \"{}\"), expected PNG, JPEG, WebP, TIFF, GIF, HEIC or AVIF", source,
        base::printable(as_text(bytes).substr(0, 16)));
  if (format == Format::png) check_png(as_text(bytes), source);
  VipsImage* image = nullptr;
  const int failed = row(*format).load(const_cast<std::byte*>(bytes.data()), bytes.size(), &image, "access",
                                       VIPS_ACCESS_SEQUENTIAL, "fail_on", VIPS_FAIL_ON_ERROR, nullptr);
  if (failed) fail_in_libvips(ErrorKind::corrupt_file, damaged(source, *format));
  Opened opened{*format, Picture(image)};
  const int64_t pixels = int64_t{image->Xsize} * image->Ysize;
  check(pixels <= options.max_pixels, ErrorKind::bad_input,
        "{}: {}×{} pixels, which is more than the {} that are accepted; scale the picture down", source, image->Xsize,
        image->Ysize, options.max_pixels);
  return opened;
}

PictureHeader header_of(const Opened& opened) {
  VipsImage* image = opened.picture.get();
  PictureHeader header{.format = opened.format,
                       .width = image->Xsize,
                       .height = image->Ysize,
                       .bands = image->Bands,
                       .orientation = vips_image_get_orientation(image),
                       .pages = std::max(1, vips_image_get_n_pages(image)),
                       .has_alpha = vips_image_hasalpha(image) != 0,
                       .has_profile = vips_image_get_typeof(image, VIPS_META_ICC_NAME) != 0};
  if (header.orientation >= 5) std::swap(header.width, header.height);
  return header;
}

/// 8-bit sRGB without alpha. A profile that is damaged or made for other channels makes libvips fail at once, before
/// any pixel; the numbers are then taken as they are.
Picture to_srgb(const Picture& colours, std::string_view source) {
  if (vips_image_get_typeof(colours.get(), VIPS_META_ICC_NAME) != 0) {
    Picture out = try_step(vips_icc_transform, colours, "srgb", "embedded", TRUE, "depth", 8, "intent",
                           VIPS_INTENT_RELATIVE, "black_point_compensation", TRUE);
    if (out && out->Bands == 3) return out;
    vips_error_clear();  // or a later failure would be explained with the profile
  }
  return step(source, vips_cast, step(source, vips_colourspace, colours, VIPS_INTERPRETATION_sRGB), VIPS_FORMAT_UCHAR);
}

/// 8-bit sRGB, or with a fourth band where the picture has alpha. Alpha is kept away from the colour conversion: the
/// background is an sRGB colour whatever the profile.
Picture to_srgb_and_alpha(const Picture& in, std::string_view source) {
  const VipsInterpretation meaning = vips_image_guess_interpretation(in.get());
  const bool grey = meaning == VIPS_INTERPRETATION_B_W || meaning == VIPS_INTERPRETATION_GREY16;
  const int colours = grey ? 1 : meaning == VIPS_INTERPRETATION_CMYK ? 4 : 3;
  check(in->Bands == colours || in->Bands == colours + 1, ErrorKind::unsupported,
        "{}: has {} channels, expected {} and at most one of transparency", source, in->Bands, colours);
  if (in->Bands == colours) return to_srgb(in, source);

  const Picture rgb = to_srgb(step(source, vips_extract_band, in, 0, "n", colours), source);
  const Picture stored = step(source, vips_extract_band, in, colours);
  const Picture alpha = step(source, vips_cast, stored, VIPS_FORMAT_UCHAR, "shift", TRUE);
  VipsImage* joined = nullptr;
  const int failed = vips_bandjoin2(rgb.get(), alpha.get(), &joined, nullptr);
  if (failed) fail_in_libvips(ErrorKind::unsupported, fmt::format("{}: cannot use its transparency", source));
  return Picture(joined);
}

/// One row of three bands, or of four whose last is alpha.
void flatten_row(const uint8_t* from, std::span<uint8_t> to, size_t bands, const std::array<uint8_t, 3>& background) {
  if (bands == 3) {
    std::copy_n(from, to.size(), to.data());
    return;
  }
  for (size_t i = 0; i < to.size(); i += 3, from += 4)
    for (size_t c = 0; c < 3; ++c)
      to[i + c] = static_cast<uint8_t>((from[c] * from[3] + background[c] * (255 - from[3]) + 127) / 255);
}

/// Decodes strip by strip in the calling thread; only the result takes memory in proportion to the picture.
RgbImage flattened_pixels(const Picture& in, std::string_view what, const std::array<uint8_t, 3>& background) {
  constexpr int kStrip = 16;
  const size_t row_bytes = static_cast<size_t>(in->Xsize) * 3;
  RgbImage out{in->Xsize, in->Ysize, std::vector<uint8_t>(row_bytes * static_cast<size_t>(in->Ysize))};
  const Region region(vips_region_new(in.get()));
  first_warning.clear();  // those about the header explain nothing from here on
  for (int top = 0; top < out.height; top += kStrip) {
    const VipsRect strip{0, top, out.width, std::min(kStrip, out.height - top)};
    if (vips_region_prepare(region.get(), &strip) != 0) fail_in_libvips(ErrorKind::corrupt_file, what);
    for (int y = top; y < top + strip.height; ++y)
      flatten_row(VIPS_REGION_ADDR(region.get(), 0, y),
                  std::span(out.pixels).subspan(static_cast<size_t>(y) * row_bytes, row_bytes),
                  static_cast<size_t>(in->Bands), background);
  }
  return out;
}

/// The image's pixels as libvips sees them, without a copy; must not outlive `image`.
Picture wrapped(const RgbImage& image) {
  const Picture plain(vips_image_new_from_memory(image.pixels.data(), image.pixels.size(), image.width, image.height, 3,
                                                 VIPS_FORMAT_UCHAR));
  if (!plain) fail_in_libvips(ErrorKind::internal, "cannot use the pixels");
  // 72 dpi: PNG states a resolution, and at libvips' own 25 a word processor makes a poster of every picture.
  constexpr double kPixelsPerMillimetre = 72 / 25.4;
  return step("pixels", vips_copy, plain, "interpretation", VIPS_INTERPRETATION_sRGB, "xres", kPixelsPerMillimetre,
              "yres", kPixelsPerMillimetre);
}

RgbImage upright(RgbImage image, int orientation) {
  if (orientation == 1) return image;
  const Picture stored = wrapped(image);
  vips_image_set_int(stored.get(), VIPS_META_ORIENTATION, orientation);
  return flattened_pixels(step("pixels", vips_autorot, stored), "pixels", {});
}

int save(const Picture& in, const EncodeOptions& options, void** bytes, size_t* size) {
  switch (options.format) {
    case Format::png:
      return vips_pngsave_buffer(in.get(), bytes, size, "compression", 6, "filter", VIPS_FOREIGN_PNG_FILTER_ALL,
                                 "strip", TRUE, nullptr);
    case Format::jpeg:
      return vips_jpegsave_buffer(in.get(), bytes, size, "Q", options.quality, "subsample_mode",
                                  VIPS_FOREIGN_SUBSAMPLE_OFF, "optimize_coding", TRUE, "strip", TRUE, nullptr);
    default:
      return vips_webpsave_buffer(in.get(), bytes, size, "Q", options.quality, "lossless", options.quality == 100,
                                  "strip", TRUE, nullptr);
  }
}

std::string encoded(const RgbImage& image, const EncodeOptions& options) {
  void* bytes = nullptr;
  size_t size = 0;
  const int failed = save(wrapped(image), options, &bytes, &size);
  const std::unique_ptr<void, decltype(&g_free)> owner(bytes, g_free);
  if (failed)
    fail_in_libvips(ErrorKind::internal, fmt::format("cannot encode {}×{} pixels as {}", image.width, image.height,
                                                     row(options.format).title));
  return {static_cast<const char*>(bytes), size};
}

void check_encodable(const RgbImage& image, const EncodeOptions& options) {
  check_image(image);
  check(options.quality >= 1 && options.quality <= 100, ErrorKind::bad_input,
        "picture quality is {}, expected 1 to 100", options.quality);
  const auto limit = [&]() -> int {
    switch (options.format) {
      case Format::png: return VIPS_MAX_COORD;
      case Format::jpeg: return 65500;
      case Format::webp: return 16383;
      default: fail(ErrorKind::unsupported, "cannot write {}, only png, jpeg and webp", name(options.format));
    }
  }();
  check(std::max(image.width, image.height) <= limit, ErrorKind::unsupported,
        "{}×{} pixels do not fit into {}, whose sides end at {}; use png", image.width, image.height,
        row(options.format).title, limit);
}

}  // namespace

std::string_view name(Format format) { return row(format).name; }

std::string_view media_type(Format format) { return row(format).media_type; }

std::optional<Format> format_from_name(std::string_view name) {
  if (name == "jpg") return Format::jpeg;
  if (name == "tif") return Format::tiff;
  if (name == "heic" || name == "avif") return Format::heif;
  const auto found = std::ranges::find(kFormats, name, &FormatRow::name);
  if (found == std::end(kFormats)) return std::nullopt;
  return found->format;
}

std::optional<Format> format_from_content(std::span<const std::byte> bytes) {
  const std::string_view text = as_text(bytes.first(std::min<size_t>(bytes.size(), 16)));
  const auto part = [&](size_t at, size_t length) { return at <= text.size() ? text.substr(at, length) : ""; };
  if (text.starts_with("\x89PNG\r\n\x1a\n")) return Format::png;
  if (text.starts_with("\xFF\xD8\xFF")) return Format::jpeg;
  if (text.starts_with("RIFF") && part(8, 4) == "WEBP") return Format::webp;
  if (text.starts_with("GIF87a") || text.starts_with("GIF89a")) return Format::gif;
  constexpr std::string_view kTiff[] = {{"II*\0", 4}, {"MM\0*", 4}, {"II+\0", 4}, {"MM\0+", 4}};  // + is BigTIFF
  if (std::ranges::find(kTiff, part(0, 4)) != std::end(kTiff)) return Format::tiff;
  constexpr std::string_view kBrands[] = {"heic", "heix", "heim", "heis", "hevc", "mif1", "msf1", "avif", "avis"};
  if (part(4, 4) == "ftyp" && std::ranges::find(kBrands, part(8, 4)) != std::end(kBrands)) return Format::heif;
  return std::nullopt;
}

PictureHeader read_header(std::span<const std::byte> bytes, std::string_view source, const DecodeOptions& options) {
  return with_libvips([&] { return header_of(open_picture(bytes, source, options)); });
}

PictureHeader read_header(const std::filesystem::path& path, const DecodeOptions& options) {
  const std::string bytes = base::read_file(path, options.max_bytes);
  return read_header(std::as_bytes(std::span(bytes)), path.string(), options);
}

RgbImage decode(std::span<const std::byte> bytes, std::string_view source, const DecodeOptions& options) {
  return with_libvips([&] {
    const Opened opened = open_picture(bytes, source, options);
    const Picture srgb = to_srgb_and_alpha(opened.picture, source);
    return upright(flattened_pixels(srgb, damaged(source, opened.format), options.background),
                   vips_image_get_orientation(opened.picture.get()));
  });
}

RgbImage decode(const std::filesystem::path& path, const DecodeOptions& options) {
  const std::string bytes = base::read_file(path, options.max_bytes);
  return decode(std::as_bytes(std::span(bytes)), path.string(), options);
}

RgbImage decode_mask(std::span<const std::byte> bytes, std::string_view source, DecodeOptions options) {
  options.background = {0, 0, 0};
  RgbImage mask = decode(bytes, source, options);
  if (!read_header(bytes, source, options).has_alpha) return mask;
  options.background = {255, 255, 255};
  RgbImage transparent = decode(bytes, source, options);
  for (size_t i = 0; i < mask.pixels.size(); ++i)
    transparent.pixels[i] = static_cast<uint8_t>(std::max(0, transparent.pixels[i] - mask.pixels[i]));
  const bool opaque = std::ranges::all_of(transparent.pixels, [](uint8_t value) { return value == 0; });
  return opaque ? mask : transparent;
}

RgbImage decode_mask(const std::filesystem::path& path, const DecodeOptions& options) {
  const std::string bytes = base::read_file(path, options.max_bytes);
  return decode_mask(std::as_bytes(std::span(bytes)), path.string(), options);
}

std::string encode(const RgbImage& image, const EncodeOptions& options) {
  check_encodable(image, options);
  const std::string plain = with_libvips([&] { return encoded(image, options); });
  switch (options.format) {
    case Format::png: return png_with_metadata(plain, options.metadata);
    case Format::jpeg: return jpeg_with_metadata(plain, options.metadata);
    default: return webp_with_metadata(plain, options.metadata, image.width, image.height);
  }
}

}  // namespace calotype::image
