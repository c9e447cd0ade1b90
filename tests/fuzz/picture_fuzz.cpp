// PNG, JPEG and WebP pictures through libvips, whose own code carries no instrumentation here.
#include "fuzz.h"
#include "image/image_codec.h"
#include "png_mutator.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  using image::Format;
  const auto format = image::format_from_content(bytes_of(input));
  if (format != Format::png && format != Format::jpeg && format != Format::webp) return;
  const image::DecodeOptions options{.max_pixels = 1 << 18};
  image::PictureHeader header;
  if (!accepted([&] { header = image::read_header(bytes_of(input), kSource, options); })) return;
  require(int64_t{header.width} * header.height <= options.max_pixels, "large pictures are refused by their header");
  require(header.orientation >= 1 && header.orientation <= 8 && header.pages >= 1, "the header makes sense");

  image::RgbImage picture;
  if (!accepted([&] { picture = image::decode(bytes_of(input), kSource, options); })) return;
  require(picture.width == header.width && picture.height == header.height, "the picture has the header's size");
  image::check_image(picture);
  if (picture.pixels.size() > 10'000) return;  // compressing them would take most of the time
  const std::string copy = image::encode(picture);
  require(image::decode(bytes_of(copy), kSource).pixels == picture.pixels, "pixels survive writing and reading");
}

}  // namespace calotype::fuzz
