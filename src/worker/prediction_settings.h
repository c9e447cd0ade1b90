// From the input of a prediction to what the sampler takes.
//
//   const GenerateOptions options = generate_options(with_defaults(model, job.input), {.side = 1024, .guidance =
//   true});
//
// Pure functions.
#pragma once

#include "image/image_codec.h"
#include "pipeline/text_to_image.h"
#include "worker/model_catalog.h"

namespace calotype::worker {

struct PictureSize {
  int width = 0, height = 0;
};

/// Pixels of an aspect ratio: for side 1024 the sizes of Replicate's FLUX models (cog-flux predict.py), for others
/// these scaled to the same area as side × side and rounded to multiples of 16; a quarter of the area halves the sides.
/// Error bad_input for a ratio that is not in the table.
PictureSize picture_size(const std::string& aspect_ratio, int side, bool quarter);

/// What the model behind a name is like.
struct ModelTraits {
  int side = 1024;       ///< pixels of the squares that it was made for
  bool guidance = true;  ///< has a guidance input
};

/// Everything but adapters and pictures. `settings` come from with_defaults(), `given` is the input as stored: what the
/// caller did not ask for gives no warnings. Errors: bad_input.
pipeline::GenerateOptions generate_options(const Json& settings, const Json& given, const ModelTraits& traits);

struct OutputFormat {
  std::string ending;        ///< "webp", "jpg", "png"
  std::string content_type;  ///< "image/webp", …
  image::EncodeOptions encode;
};
OutputFormat output_format(const Json& settings);

/// One adapter that an input names, and its factor.
struct NamedLora {
  std::string source;
  double scale = 1;
};
/// In the order of the input, without those named twice. `own` stands for the version's own adapter, "" = it has none.
std::vector<NamedLora> named_loras(const Json& settings, const std::string& own);

/// Messages speak of command line options; callers of an API know fields: "--true-cfg" → "true-cfg".
std::string without_dashes(const std::string& text);

/// The same for paths of this machine, which are nobody's business: each `path` in the text becomes `name`.
std::string with_name(std::string text, const std::filesystem::path& path, const std::string& name);

}  // namespace calotype::worker
