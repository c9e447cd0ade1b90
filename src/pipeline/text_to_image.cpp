#include "pipeline/text_to_image.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cmath>
#include <random>

#include "base/check_range.h"
#include "base/error.h"
#include "pipeline/processor.h"

namespace calotype::pipeline {

using base::check_range;
using base::ErrorKind;
using weights::Component;

namespace {

constexpr int kMaxSide = 8192;
constexpr int64_t kPreviewSide = 32;  // latents; 256 pixels with the published VAE

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void report(const GenerateHooks& hooks, std::string_view stage, int64_t done, int64_t total) {
  if (hooks.cancel) hooks.cancel->throw_if_requested();
  if (hooks.progress) hooks.progress({.stage = stage, .done = done, .total = total});
}

/// [3, H, W] in −1 … 1 → 8 bits, with diffusers' rounding: clamp, then to the nearest.
image::RgbImage to_image(const Tensor& picture_3HW) {
  const Tensor scaled = (picture_3HW * 0.5 + 0.5).clamp(0, 1).to(at::kFloat) * 255;
  const Tensor bytes = scaled.round().to(at::kByte).permute({1, 2, 0}).contiguous().to(at::kCPU);
  const auto* begin = bytes.const_data_ptr<uint8_t>();
  return {.width = static_cast<int>(bytes.size(1)),
          .height = static_cast<int>(bytes.size(0)),
          .pixels = std::vector<uint8_t>(begin, begin + bytes.numel())};
}

/// The sides of a picture in its own shape whose area is that of the squares the model was made for.
std::pair<int, int> sides_like(const image::RgbImage& picture, const vae::AutoencoderConfig& vae) {
  const double scale = static_cast<double>(vae.sample_size) / std::sqrt(1.0 * picture.width * picture.height);
  const auto side = [&](int given) {
    const auto multiple = static_cast<double>(2 * vae.factor());
    return static_cast<int>(std::clamp(std::round(given * scale / multiple), 1.0, kMaxSide / multiple) * multiple);
  };
  return {side(picture.width), side(picture.height)};
}

int checked_side(std::string_view field, std::optional<int> given, const vae::AutoencoderConfig& vae,
                 std::vector<std::string>& warnings) {
  const int64_t multiple = 2 * vae.factor();
  const auto value = given.value_or(static_cast<int>(std::max(vae.sample_size, multiple)));
  base::check(value >= multiple && value <= kMaxSide, ErrorKind::bad_input, "--{} is {}, expected {} to {} pixels",
              field, value, multiple, kMaxSide);
  const int rounded = static_cast<int>(value / multiple * multiple);
  if (rounded != value)
    warnings.push_back(fmt::format("{} {} was rounded down to {}, a multiple of {}", field, value, rounded, multiple));
  return rounded;
}

/// The picture to start from and its mask as the model will see them.
void fit_to_size(GenerateOptions& options) {
  for (std::shared_ptr<const image::RgbImage>* picture : {&options.start, &options.mask})
    if (*picture)
      *picture = std::make_shared<const image::RgbImage>(
          image::resized_to_fill(**picture, *options.width, *options.height));
}

bool is_marked(const image::RgbImage& mask, size_t pixel) {
  const uint8_t* p = mask.pixels.data() + 3 * pixel;
  return p[0] + p[1] + p[2] >= 3 * 128;
}

void check_mask(const image::RgbImage& mask, const image::RgbImage* start) {
  base::check(start, ErrorKind::bad_input, "a mask was given without the picture of which a part is drawn anew");
  base::check(mask.width == start->width && mask.height == start->height, ErrorKind::bad_input,
              "the mask has {}×{} pixels, the picture {}×{}; both must be of one size", mask.width, mask.height,
              start->width, start->height);
  for (size_t i = 0; i < mask.pixels.size() / 3; ++i)
    if (is_marked(mask, i)) return;
  base::fail(ErrorKind::bad_input, "the mask marks nothing: white is drawn anew, black stays");
}

/// [1, 1, h, w]: 1 for latents of which any pixel is drawn anew, so that nothing marked stays.
Tensor drawn_latents(const image::RgbImage& mask, int64_t factor) {
  Tensor marked = at::empty({1, 1, mask.height, mask.width});
  auto* out = marked.mutable_data_ptr<float>();
  for (size_t i = 0; i < mask.pixels.size() / 3; ++i) out[i] = is_marked(mask, i) ? 1 : 0;
  return at::max_pool2d(marked, factor);
}

void keep_unmarked(image::RgbImage& picture, const image::RgbImage& start, const image::RgbImage& mask) {
  for (size_t i = 0; i < mask.pixels.size() / 3; ++i)
    if (!is_marked(mask, i)) std::copy_n(start.pixels.begin() + 3 * i, 3, picture.pixels.begin() + 3 * i);
}

/// Of the noisiest steps, when a picture is given: diffusers FluxImg2ImgPipeline.get_timesteps, but at least one stays.
int steps_left_out(const GenerateOptions& options) {
  return std::min(options.steps - 1, static_cast<int>(options.steps - options.steps * options.strength));
}

uint64_t random_seed() {
  std::random_device device;  // 32 bits: every client that speaks JSON can repeat the number exactly
  return device();
}

}  // namespace

Tensor to_tensor(const image::RgbImage& picture) {
  auto* pixels = const_cast<uint8_t*>(picture.pixels.data());
  const Tensor bytes = at::from_blob(pixels, {picture.height, picture.width, 3}, at::kByte);
  return bytes.permute({2, 0, 1}).unsqueeze(0).to(at::kFloat) / 127.5 - 1;
}

std::vector<image::RgbImage> decode_latents(const vae::Autoencoder& vae, const Tensor& latents_BChw,
                                            const GenerateHooks& hooks) {
  const c10::InferenceMode inference;
  const vae::AutoencoderConfig& config = vae.config();
  base::check(latents_BChw.dim() == 4 && latents_BChw.size(1) == config.latent_channels, ErrorKind::bad_input,
              "latents of shape {} do not fit the VAE, expected [pictures, {}, height, width]",
              files::shape_text(latents_BChw.sizes().vec()), config.latent_channels);
  report(hooks, "decode", 0, latents_BChw.size(0));
  const int64_t pixels = latents_BChw.size(2) * latents_BChw.size(3) * config.factor() * config.factor();
  const bool tiled = vae.decode_bytes(pixels) > available_memory(vae.device());
  std::vector<image::RgbImage> images;
  for (int64_t i = 0; i < latents_BChw.size(0); ++i) {
    const Tensor one = latents_BChw.narrow(0, i, 1).to(vae.device(), vae.dtype());
    images.push_back(to_image((tiled ? vae.decode_tiled(one, {}, hooks.cancel) : vae.decode(one))[0]));
    report(hooks, "decode", i + 1, latents_BChw.size(0));
  }
  return images;
}

TextToImage::TextToImage(ModelBundle bundle, RuntimeOptions options)
    : bundle_(std::move(bundle)),
      encoder_(bundle_),
      device_(options.device),
      vae_config_(vae::autoencoder_config(bundle_.part(Component::vae))) {
  const flux::TransformerConfig config = bundle_.transformer();
  dtype_ = options.dtype.value_or(default_dtype(bundle_.part(Component::transformer).parameters(), device_));
  base::check(config.in_channels == config.out_channels, ErrorKind::unsupported,
              "{}: this is a {} model, which needs a picture as condition; only text-to-image models can be used",
              bundle_.name, bundle_.variant().name);
  base::check(config.out_channels == 4 * vae_config_.latent_channels, ErrorKind::conflict,
              "{} makes latents of {} channels, {} reads {}; transformer and VAE do not belong together",
              bundle_.part(Component::transformer).where(), config.out_channels / 4,
              bundle_.part(Component::vae).where(), vae_config_.latent_channels);
  const int64_t t5 = text::t5_config(bundle_.part(Component::t5)).width,
                clip = text::clip_config(bundle_.part(Component::clip)).width;
  base::check(t5 == config.text_width && clip == config.pooled_width, ErrorKind::conflict,
              "{} expects T5 states of width {} and a CLIP vector of {}, the encoders make {} and {}; they belong to "
              "another model",
              bundle_.part(Component::transformer).where(), config.text_width, config.pooled_width, t5, clip);
}

GenerateResult TextToImage::checked(const GenerateOptions& options) const {
  GenerateResult result{
      .used = options, .model = bundle_.name, .variant = std::string(bundle_.variant().name), .dtype = dtype_};
  GenerateOptions& used = result.used;
  const flux::Variant& variant = bundle_.variant();
  if (options.start && !options.width && !options.height)
    std::tie(used.width, used.height) = sides_like(*options.start, vae_config_);
  used.width = checked_side("width", used.width, vae_config_, result.warnings);
  used.height = checked_side("height", used.height, vae_config_, result.warnings);
  check_range("steps", options.steps, 0, 1000);
  if (used.steps == 0) used.steps = variant.steps;
  if (options.start)
    base::check(options.strength > 0 && options.strength <= 1, ErrorKind::bad_input,
                "--strength is {}, expected above 0 and at most 1", options.strength);
  if (options.mask) check_mask(*options.mask, options.start.get());
  check_range("count", options.count, 1, 64);
  check_range("true-cfg", options.true_cfg, 1, 100);
  check_range("max-sequence-length", options.max_sequence_length, 0, 512);
  if (used.max_sequence_length == 0) used.max_sequence_length = static_cast<int>(bundle_.text_tokens);
  if (options.guidance) check_range("guidance", *options.guidance, 0, 100);
  if (options.guidance && !variant.guidance) {
    result.warnings.push_back(
        fmt::format("guidance {} was ignored: {} models have no guidance input", *options.guidance, variant.name));
    used.guidance.reset();
  } else if (!options.guidance && variant.guidance) {
    used.guidance = variant.guidance_scale;
  }
  for (const adapters::LoraChoice& lora : options.loras)
    base::check(lora.scale >= -10 && lora.scale <= 10, ErrorKind::bad_input,
                "the scale of --lora {} is {}, expected -10 to 10", lora.path.string(), lora.scale);
  if (!options.negative_prompt.empty() && options.true_cfg <= 1) {
    result.warnings.push_back("the negative prompt was ignored: it needs --true-cfg above 1 (and twice the time)");
    used.negative_prompt.clear();
  }
  if (options.true_cfg > 1 && options.negative_prompt.empty()) {
    result.warnings.push_back("--true-cfg was ignored: it needs a negative prompt");
    used.true_cfg = 1;
  }
  if (static_cast<int64_t>(*used.width) * *used.height > 2'100'000 && vae_config_.factor() == 8)
    result.warnings.push_back("FLUX.1 was trained for 0.1 to 2 megapixels; larger pictures may show grids or repeats");
  if (!used.seed) used.seed = random_seed();
  return result;
}

MemoryRequest TextToImage::memory_request(const GenerateOptions& o) const {
  return {.dtype = dtype_,
          .device = device_,
          .width = *o.width,
          .height = *o.height,
          .text_tokens = o.max_sequence_length,
          .batch = o.count,
          .guided_twice = o.true_cfg > 1};
}

weights::LoadOptions TextToImage::load_options() const {
  using Plain = weights::LoadOptions::Plain;
  return {
      .dtype = dtype_, .device = device_, .plain = plan_.convert_once ? Plain::convert_once : Plain::convert_at_use};
}

flux::LatentSize TextToImage::latent_size(const GenerateOptions& o) const {
  return {.channels = vae_config_.latent_channels,
          .height = *o.height / vae_config_.factor(),
          .width = *o.width / vae_config_.factor()};
}

flux::Conditioning TextToImage::encode(const std::string& prompt, const GenerateOptions& options,
                                       GenerateResult& result, const GenerateHooks& hooks) {
  const text::PromptTokens tokens = encoder_.tokenize(prompt, options.max_sequence_length);
  if (tokens.t5_used > options.max_sequence_length)
    result.warnings.push_back(fmt::format("the prompt has {} T5 tokens, {} were cut: the model reads {}",
                                          tokens.t5_used, tokens.t5_used - options.max_sequence_length,
                                          options.max_sequence_length));
  const std::string key = fmt::format("{}|{}", options.max_sequence_length, prompt);
  if (const auto found = encoded_.find(key); found != encoded_.end()) return found->second;
  encoder_.load(load_options());
  return encoded_[key] = encoder_.encode({prompt}, options.max_sequence_length,
                                         [&](int layer, int layers) { report(hooks, "text", layer, layers); });
}

flux::Conditioning TextToImage::conditioning(const std::string& prompt, const GenerateOptions& options,
                                             GenerateResult& result, const GenerateHooks& hooks) {
  flux::Conditioning cond = encode(prompt, options, result, hooks);
  cond.guidance = options.guidance.value_or(0);
  cond.pooled_BP = cond.pooled_BP.expand({options.count, -1});
  cond.text_BTE = cond.text_BTE.expand({options.count, -1, -1});
  return cond;
}

void TextToImage::encode_ahead(const std::vector<GenerateOptions>& jobs, const GenerateHooks& hooks) {
  const c10::InferenceMode inference;
  for (const GenerateOptions& job : jobs) {
    GenerateResult result = checked(job);
    read_loras(result);
    plan_ = plan_memory(bundle_, memory_request(result.used), available_memory(device_));
    plan_.refuse_if_too_large();
    encode(job.prompt, result.used, result, hooks);
    if (result.used.true_cfg > 1) encode(job.negative_prompt, result.used, result, hooks);
  }
  encoder_.release();
}

/// Tries adapters on the layers' shapes alone, so that a wrong file is refused before anything large is loaded.
void TextToImage::read_loras(GenerateResult& result) {
  weights::AdapterSlots shapes;
  if (!result.used.loras.empty()) {
    const flux::Scope scope(bundle_.part(Component::transformer), {.device = at::kMeta});
    shapes = flux::FluxTransformer(bundle_.transformer(), scope).adapter_slots();
  }
  loras_.read(result.used.loras, shapes);
  result.loras = loras_.applied();
  result.warnings.insert(result.warnings.end(), loras_.warnings().begin(), loras_.warnings().end());
}

void TextToImage::load_transformer(const GenerateHooks& hooks) {
  if (transformer_) return;
  report(hooks, "load", 0, 1);
  transformer_ = std::make_unique<flux::FluxTransformer>(bundle_.part(Component::transformer), load_options());
  report(hooks, "load", 1, 1);
}

void TextToImage::load_vae() {
  if (!vae_) vae_ = std::make_unique<vae::Autoencoder>(bundle_.part(Component::vae), load_options());
}

image::RgbImage TextToImage::preview(const Tensor& clean_BLC, flux::LatentSize size) {
  load_vae();
  Tensor latent = flux::unpack(clean_BLC.narrow(0, 0, 1), size);
  const int64_t longest = std::max(size.height, size.width);
  if (longest > kPreviewSide) {
    const auto scaled = [&](int64_t side) { return std::max<int64_t>(1, side * kPreviewSide / longest); };
    latent = at::adaptive_avg_pool2d(latent, {scaled(size.height), scaled(size.width)});
  }
  return to_image(vae_->decode(latent.to(dtype_))[0]);
}

/// Latents of the start [1, C, h, w], of the mean of the posterior: diffusers draws a sample of it.
Tensor TextToImage::start_latents(const GenerateOptions& options, const GenerateHooks& hooks) {
  report(hooks, "encode", 0, 1);
  const vae::Autoencoder encoder(bundle_.part(Component::vae), load_options(), vae::Autoencoder::Parts::both);
  const Tensor picture = to_tensor(*options.start);
  const Tensor mean = encoder.encode(picture.to(device_, encoder.dtype())).mean_BChw;
  report(hooks, "encode", 1, 1);
  return encoder.scaled(mean).to(at::kFloat);
}

Tensor TextToImage::denoise(const GenerateOptions& options, const flux::Conditioning& positive,
                            std::optional<flux::Conditioning> negative, const GenerateHooks& hooks) {
  const flux::LatentSize size = latent_size(options);
  std::vector<float> sigmas = flux::schedule(bundle_.schedule, options.steps, size.tokens());
  const Tensor noise_BChw = flux::noise(options.noise, *options.seed, options.count, size).to(device_);
  Tensor start_BChw = noise_BChw;
  std::optional<flux::Kept> kept;
  if (options.start) {
    sigmas.erase(sigmas.begin(), sigmas.begin() + steps_left_out(options));
    const Tensor clean_BChw = start_latents(options, hooks);
    start_BChw = sigmas[0] * noise_BChw + (1 - sigmas[0]) * clean_BChw;
    if (options.mask) {
      const Tensor drawn = drawn_latents(*options.mask, vae_config_.factor()).to(device_).expand_as(clean_BChw);
      kept = {flux::pack(clean_BChw), flux::pack(noise_BChw), flux::pack(drawn)};
    }
  }
  const Tensor start_BLC = flux::pack(start_BChw).to(dtype_);
  report(hooks, "denoise", 0, static_cast<int64_t>(sigmas.size()) - 1);
  const Tensor latents_BLC = flux::sample(*transformer_, start_BLC, size,
                                          {.sigmas = std::move(sigmas),
                                           .positive = positive,
                                           .negative = std::move(negative),
                                           .true_cfg = options.true_cfg,
                                           .kept = std::move(kept),
                                           .on_step =
                                               [&](const flux::StepReport& step) {
                                                 report(hooks, "denoise", step.step, step.steps);
                                                 if (hooks.preview && step.step < step.steps)
                                                   hooks.preview(step.step, preview(step.clean_BLC, size));
                                               },
                                           .cancel = hooks.cancel});
  return flux::unpack(latents_BLC, size);
}

GenerateResult TextToImage::generate(const GenerateOptions& options, const GenerateHooks& hooks) {
  const c10::InferenceMode inference;
  GenerateResult result = checked(options);
  fit_to_size(result.used);
  const GenerateOptions& used = result.used;
  plan_ = plan_memory(bundle_, memory_request(used), available_memory(device_));
  if (!transformer_) plan_.refuse_if_too_large();
  const Stopwatch reading;
  read_loras(result);
  result.seconds["load"] = reading.seconds();

  const Stopwatch text;
  const flux::Conditioning positive = conditioning(used.prompt, used, result, hooks);
  std::optional<flux::Conditioning> negative;
  if (used.true_cfg > 1) negative = conditioning(used.negative_prompt, used, result, hooks);
  encoder_.release();
  result.seconds["text"] = text.seconds();

  const Stopwatch load;
  load_transformer(hooks);
  loras_.attach_to(transformer_->adapter_slots(), device_);
  result.seconds["load"] += load.seconds();

  const Stopwatch sampling;
  const Tensor latents_BChw = denoise(used, positive, std::move(negative), hooks);
  result.seconds["denoise"] = sampling.seconds();
  if (hooks.latents) {
    Latents latents{.latents_BChw = latents_BChw, .seeds = {}};
    for (int i = 0; i < used.count; ++i) latents.seeds.push_back(*used.seed + static_cast<uint64_t>(i));
    hooks.latents(latents);
  }

  const Stopwatch decoding;
  load_vae();
  std::vector<image::RgbImage> images = decode_latents(*vae_, latents_BChw, hooks);
  if (used.mask)
    for (image::RgbImage& image : images) keep_unmarked(image, *used.start, *used.mask);
  result.seconds["decode"] = decoding.seconds();
  for (size_t i = 0; i < images.size(); ++i)
    result.pictures.push_back({.image = std::move(images[i]), .seed = *used.seed + i});
  result.peak_memory = peak_memory();
  return result;
}

}  // namespace calotype::pipeline
