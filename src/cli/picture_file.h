// Finished pictures and latents on disk: names, formats, what is written into them.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "image/image_codec.h"
#include "pipeline/text_to_image.h"

namespace calotype::cli {

struct OutputOptions {
  std::filesystem::path output = "calotype.png";
  std::string format;  ///< png, jpeg, webp; empty: by the name's ending
  int quality = 90;
  bool metadata = true;  ///< prompt and settings
  bool ai_tag = true;    ///< says that a model made the picture
};

/// Format from --format or the ending. Errors: bad_input.
image::Format output_format(const OutputOptions& options);

/// Asked before the work, so that it is not lost after hours. Errors: not_found where the file's folder does not exist;
/// bad_input where the file is a folder.
void check_place(const std::filesystem::path& file);

/// name.png for one picture, name-1.png, name-2.png … for several.
std::filesystem::path numbered(const std::filesystem::path& output, int index, int count);

/// Settings as JSON, the seed of each picture as a number; what --json prints is built on it.
nlohmann::json settings_json(const pipeline::GenerateResult& result, uint64_t seed);
/// The text that other programs read from a PNG's `parameters`.
std::string parameters_text(const pipeline::GenerateResult& result, uint64_t seed);

void write_picture(const std::filesystem::path& path, const image::RgbImage& picture, const image::Metadata& metadata,
                   const OutputOptions& options);

/// Latents as safetensors: tensor "latents" [B, C, h, w] f32, settings in the metadata.
void write_latents(const std::filesystem::path& path, const pipeline::Latents& latents,
                   const pipeline::GenerateResult& result);

struct StoredLatents {
  at::Tensor latents_BChw;
  std::string settings;  ///< JSON, may be empty
};
/// Errors: those of the file; bad_input when it holds no latents.
StoredLatents read_latents(const std::filesystem::path& path);

}  // namespace calotype::cli
