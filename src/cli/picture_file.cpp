#include "cli/picture_file.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/version.h"
#include "pipeline/processor.h"
#include "weights/tensor_writer.h"
#include "weights/unpack.h"

namespace calotype::cli {
namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;

namespace {

std::string_view name(flux::NoiseStream stream) {
  switch (stream) {
    case flux::NoiseStream::bfl: return "bfl";
    case flux::NoiseStream::comfy: return "comfy";
    default: return "torch";
  }
}

}  // namespace

image::Format output_format(const OutputOptions& options) {
  std::string text = options.format;
  if (text.empty()) text = options.output.extension().string().erase(0, 1);
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (text.empty()) return image::Format::png;
  const auto format = image::format_from_name(text);
  const bool writable = format == image::Format::png || format == image::Format::jpeg || format == image::Format::webp;
  base::check(writable, ErrorKind::bad_input, "{}: pictures are written as png, jpeg or webp, not {}",
              options.format.empty() ? options.output.string() : "--format", base::printable(text));
  base::check(options.quality >= 1 && options.quality <= 100, ErrorKind::bad_input,
              "--quality is {}, expected 1 to 100", options.quality);
  return *format;
}

void check_place(const fs::path& file) {
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  base::check(fs::is_directory(folder), ErrorKind::not_found, "{}: the folder {} does not exist", file.string(),
              folder.string());
  base::check(!fs::is_directory(file), ErrorKind::bad_input, "{}: is a folder, expected a file name", file.string());
}

fs::path numbered(const fs::path& output, int index, int count) {
  if (count == 1) return output;
  fs::path path = output;
  return path.replace_filename(fmt::format("{}-{}{}", output.stem().string(), index + 1, output.extension().string()));
}

json settings_json(const pipeline::GenerateResult& result, uint64_t seed) {
  const pipeline::GenerateOptions& o = result.used;
  json out = {{"prompt", o.prompt},
              {"width", *o.width},
              {"height", *o.height},
              {"steps", o.steps},
              {"seed", seed},
              {"max_sequence_length", o.max_sequence_length},
              {"noise", name(o.noise)},
              {"model", result.model},
              {"variant", result.variant},
              {"dtype", pipeline::dtype_name(result.dtype)},
              {"software", kProgramVersion}};
  if (o.guidance) out["guidance"] = *o.guidance;
  if (o.start) out["strength"] = o.strength;
  // Names alone: a picture that is passed on must not tell how its maker's folders are called.
  for (const adapters::LoraChoice& lora : o.loras)
    out["loras"].push_back({{"name", base::printable(lora.path.filename().string(), 255)}, {"scale", lora.scale}});
  if (o.true_cfg > 1) out.update({{"true_cfg", o.true_cfg}, {"negative_prompt", o.negative_prompt}});
  return out;
}

std::string parameters_text(const pipeline::GenerateResult& result, uint64_t seed) {
  const pipeline::GenerateOptions& o = result.used;
  std::string text = o.prompt;
  for (const adapters::LoraChoice& lora : o.loras)
    text += fmt::format(" <lora:{}:{}>", base::printable(lora.path.stem().string(), 255), lora.scale);
  text += "\n";
  if (!o.negative_prompt.empty()) text += "Negative prompt: " + o.negative_prompt + "\n";
  text += fmt::format("Steps: {}, Sampler: Euler, CFG scale: {}, ", o.steps, o.true_cfg);
  if (o.guidance) text += fmt::format("Distilled CFG Scale: {}, ", *o.guidance);
  return text + fmt::format("Seed: {}, Size: {}x{}, Model: {}, Version: {}", seed, *o.width, *o.height, result.model,
                            kProgramVersion);
}

void write_picture(const fs::path& path, const image::RgbImage& picture, const image::Metadata& metadata,
                   const OutputOptions& options) {
  image::EncodeOptions encode{.format = output_format(options), .quality = options.quality, .metadata = metadata};
  if (!options.metadata) encode.metadata.parameters = encode.metadata.settings_json = encode.metadata.software = "";
  encode.metadata.ai_generated = options.ai_tag;
  base::write_file(path, image::encode(picture, encode));
}

void write_latents(const fs::path& path, const pipeline::Latents& latents, const pipeline::GenerateResult& result) {
  json settings = json::array();
  for (const uint64_t seed : latents.seeds) settings.push_back(settings_json(result, seed));
  weights::write_tensors(path, {{"latents", latents.latents_BChw.to(at::kFloat)}}, {{"settings", settings.dump()}});
}

StoredLatents read_latents(const fs::path& path) {
  files::TensorFile file = files::open_tensor_file(path);
  for (const files::StoredTensor& tensor : file.tensors) {
    if (tensor.name != "latents" || tensor.shape.size() != 4 || !files::is_real(tensor.type)) continue;
    const at::Tensor values = weights::unpack({.parts = {{.tensor = tensor}}}, at::kFloat);
    return {values, file.metadata.contains("settings") ? file.metadata["settings"] : ""};
  }
  base::fail(
      ErrorKind::bad_input,
      "{}: has no tensor \"latents\" of four dimensions; expected a file that `calotype generate --save-latents` wrote",
      path.string());
}

}  // namespace calotype::cli
