#include "worker/prediction_settings.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace calotype::worker {
using base::ErrorKind;
using pipeline::GenerateOptions;

namespace {

constexpr int kMultiple = 16;
constexpr double kLeastStrength = 1e-3;  // clients may say 0, which still means one step

struct Ratio {
  const char* name;
  int width, height;  // at side 1024
};
constexpr Ratio kRatios[] = {{"1:1", 1024, 1024}, {"16:9", 1344, 768}, {"21:9", 1536, 640}, {"3:2", 1216, 832},
                             {"2:3", 832, 1216},  {"4:5", 896, 1088},  {"5:4", 1088, 896},  {"3:4", 896, 1152},
                             {"4:3", 1152, 896},  {"9:16", 768, 1344}, {"9:21", 640, 1536}};

int nearest_multiple(double value) {
  return std::max(kMultiple, static_cast<int>(std::lround(value / kMultiple)) * kMultiple);
}

int next_multiple(int64_t value) { return static_cast<int>((value + kMultiple - 1) / kMultiple * kMultiple); }

PictureSize size_of(const Json& settings, int side) {
  const bool given = settings.contains("width") || settings.contains("height");
  const std::string ratio = settings.value("aspect_ratio", "1:1");
  // Models that offer "custom" take width and height with it only; others have no word for it.
  if (ratio == "custom" || (given && !settings.contains("model")))
    return {next_multiple(settings.value("width", side)), next_multiple(settings.value("height", side))};
  return picture_size(ratio, side, settings.value("megapixels", "1") == "0.25");
}

std::optional<double> guidance_of(const Json& settings, const Json& given, bool has_guidance) {
  for (const char* name : {"guidance", "guidance_scale"})
    if (given.contains(name) && given.at(name).is_number()) return given.at(name).get<double>();
  if (!has_guidance) return std::nullopt;  // nobody asked: nothing to warn about
  for (const char* name : {"guidance", "guidance_scale"})
    if (settings.contains(name)) return settings.at(name).get<double>();
  return std::nullopt;
}

}  // namespace

PictureSize picture_size(const std::string& aspect_ratio, int side, bool quarter) {
  const double scale = side / 1024.0 * (quarter ? 0.5 : 1);
  for (const Ratio& ratio : kRatios)
    if (aspect_ratio == ratio.name)
      return {nearest_multiple(ratio.width * scale), nearest_multiple(ratio.height * scale)};
  base::fail(ErrorKind::bad_input, "aspect_ratio is {}, expected one like 1:1 or 16:9", base::printable(aspect_ratio));
}

GenerateOptions generate_options(const Json& settings, const Json& given, const ModelTraits& traits) {
  GenerateOptions out;
  out.prompt = settings.value("prompt", "");
  if (settings.contains("image")) {  // the result has its shape
    out.strength = std::max(settings.value("prompt_strength", 0.8), kLeastStrength);
  } else {
    const PictureSize size = size_of(settings, traits.side);
    out.width = size.width;
    out.height = size.height;
  }
  out.steps = settings.value("num_inference_steps", 0);
  out.guidance = guidance_of(settings, given, traits.guidance);
  out.count = settings.value("num_outputs", 1);
  if (settings.contains("seed")) out.seed = settings.at("seed").get<uint64_t>();
  return out;
}

OutputFormat output_format(const Json& settings) {
  const std::string ending = settings.value("output_format", "webp");
  const auto format = image::format_from_name(ending);
  base::check(format && (ending == "webp" || ending == "jpg" || ending == "jpeg" || ending == "png"),
              ErrorKind::bad_input, "output_format is {}, expected webp, jpg or png", base::printable(ending));
  return {.ending = ending,
          .content_type = std::string(image::media_type(*format)),
          .encode = {.format = *format,
                     .quality = std::clamp(settings.value("output_quality", 80), 1, 100),
                     .metadata = {.software = "Calotype"}}};
}

std::vector<NamedLora> named_loras(const Json& settings, const std::string& own) {
  std::vector<NamedLora> all;
  const auto add = [&](const std::string& source, double scale) {
    if (!source.empty() && std::ranges::find(all, source, &NamedLora::source) == all.end())
      all.push_back({source, scale});
  };
  const double scale = settings.value("lora_scale", 1.0);
  const std::string replacement = settings.value("replicate_weights", "");
  add(replacement.empty() ? own : replacement, scale);
  add(settings.value("lora_weights", ""), scale);
  add(settings.value("hf_lora", ""), scale);
  add(settings.value("extra_lora", ""), settings.value("extra_lora_scale", 1.0));
  const Json sources = settings.value("hf_loras", Json::array()), scales = settings.value("lora_scales", Json::array());
  for (size_t i = 0; i < sources.size(); ++i)
    add(sources[i].get<std::string>(), i < scales.size() ? scales[i].get<double>() : 1.0);
  return all;
}

std::string without_dashes(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool option = text.compare(i, 2, "--") == 0 && i + 2 < text.size() && std::isalpha(text[i + 2]) &&
                        (i == 0 || text[i - 1] == ' ' || text[i - 1] == '(');
    if (option)
      ++i;
    else
      out += text[i];
  }
  return out;
}

std::string with_name(std::string text, const std::filesystem::path& path, const std::string& name) {
  for (size_t at = 0; (at = text.find(path.string(), at)) != std::string::npos; at += name.size())
    text.replace(at, path.string().size(), name);
  return text;
}

}  // namespace calotype::worker
