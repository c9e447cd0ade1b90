#include "worker/prediction_job.h"

#include <span>
#include <thread>

#include "base/error.h"
#include "image/image_codec.h"
#include "store/file_reference.h"
#include "worker/prediction_settings.h"

namespace calotype::worker {
using base::ErrorKind;
using pipeline::GenerateOptions;
using pipeline::GenerateResult;

namespace {

constexpr uint64_t kMostPictureBytes = 1 << 30;
constexpr const char* kOwnAdapter = "\n";  // stands for the version's own adapter; no name contains it

std::optional<store::Version> trained_version(const store::Job& job, store::Store& store) {
  const size_t slash = job.model.find('/');
  if (slash == std::string::npos) return std::nullopt;
  return store.models->find_version(job.model.substr(0, slash), job.model.substr(slash + 1), job.version);
}

bool skips_safety(const Json& settings, const SafetyOptions& safety) {
  return safety.may_be_disabled && settings.value("disable_safety_checker", false);
}

std::string content_type_of(const std::string& ending) {
  return std::string(image::media_type(image::format_from_name(ending).value()));
}

/// One run of the sampler for one job.
class Drawing {
 public:
  Drawing(JobWriter& job, Services& services)
      : job_(job),
        services_(services),
        model_(served_model(job.job(), services.store)),
        settings_(with_defaults(model_, job.job().input)),
        version_(find_model(job.job().model) ? std::nullopt : trained_version(job.job(), services.store)) {}

  JobResult run() {
    const Backing backing = weights_behind(services_.models, name(), settings_.value("model", model_.backend));
    job_.log(backing.sentence);
    pipeline::TextToImage& flux = services_.loaded.get(backing.weights);
    const auto vae = vae::autoencoder_config(flux.bundle().part(weights::Component::vae));
    GenerateOptions options =
        generate_options(settings_, job_.job().input,
                         {.side = static_cast<int>(vae.sample_size), .guidance = flux.bundle().variant().guidance});
    options.start = picture("image");
    options.mask = picture("mask");
    options.loras = loras();
    options.seed = flux.checked(options).used.seed;  // drawn now, so that the log names it first
    job_.start();
    job_.log(fmt::format("Using seed: {}", *options.seed));
    job_.log("Prompt: " + base::printable(options.prompt, 10'000));
    const GenerateResult result = generate(flux, options);
    report(result);
    return {.output = save(result),
            .metrics = {{"image_count", result.pictures.size()},
                        {"load_time", result.seconds.at("load")},
                        {"denoise_time", result.seconds.at("denoise")}}};
  }

 private:
  GenerateResult generate(pipeline::TextToImage& flux, const GenerateOptions& options) try {
    return flux.generate(options, hooks());
  } catch (const base::Error& error) {
    throw base::Error(error.kind(), with_names(error.what()));
  }

  /// Messages name adapters as the input does.
  std::string with_names(std::string text) const {
    for (const auto& [path, name] : names_) text = with_name(std::move(text), path, name);
    return text;
  }

  /// Base models by their own names, trained ones by what they were trained on.
  std::string name() const {
    return version_ ? "black-forest-labs/flux-" + settings_.value("model", model_.backend) : model_.full_name();
  }

  /// The picture that an input names, if it does.
  std::shared_ptr<const image::RgbImage> picture(const std::string& field) {
    if (!settings_.contains(field)) return nullptr;
    const std::string bytes =
        services_.files.read(settings_.at(field), services_.store.data / "work" / job_.job().id, kMostPictureBytes,
                             &job_.cancel_token());
    const auto content = std::as_bytes(std::span(bytes));
    return std::make_shared<const image::RgbImage>(field == "mask" ? image::decode_mask(content, field)
                                                                   : image::decode(content, field));
  }

  std::vector<adapters::LoraChoice> loras() {
    std::vector<adapters::LoraChoice> out;
    for (const NamedLora& lora : named_loras(settings_, version_ ? kOwnAdapter : "")) {
      const bool own = lora.source == kOwnAdapter;
      const std::filesystem::path path =
          own ? services_.loras.of_version(*version_)
              : services_.loras.find(lora.source, job_.claim().secrets, &job_.cancel_token());
      out.push_back({.path = path, .scale = lora.scale});
      names_.emplace_back(path, own ? job_.job().model : shown_source(lora.source));
      job_.log(fmt::format("Adapter: {}, scale {}", names_.back().second, lora.scale));
    }
    return out;
  }

  pipeline::GenerateHooks hooks() {
    pipeline::GenerateHooks out;
    out.cancel = &job_.cancel_token();
    out.progress = [this](const base::ProgressEvent& event) {
      if (event.stage == "denoise")
        job_.bar(event.stage, event.done, event.total);
      else
        job_.progress(event.stage, event.done, event.total);
    };
    out.preview = [this](int, const image::RgbImage& picture) { job_.preview(picture); };
    return out;
  }

  void report(const GenerateResult& result) {
    for (const adapters::AppliedLora& lora : result.loras)
      if (lora.applied != lora.total)
        job_.log(fmt::format("Warning: {} of the {} layers of an adapter take effect", lora.applied, lora.total));
    for (const std::string& warning : result.warnings) job_.log("Warning: " + without_dashes(with_names(warning)));
    double seconds = 0;
    for (const auto& [stage, time] : result.seconds) seconds += time;
    job_.log(fmt::format("Generated {} picture{} of {}×{} in {:.2f} seconds", result.pictures.size(),
                         result.pictures.size() == 1 ? "" : "s", *result.used.width, *result.used.height, seconds));
  }

  Json save(const GenerateResult& result) {
    const OutputFormat format = output_format(settings_);
    Json files = Json::array();
    std::string reason;
    for (size_t i = 0; i < result.pictures.size(); ++i) {
      std::string refused;
      const std::string bytes = image::encode(result.pictures[i].image, format.encode);
      const std::string reference = store_picture(job_, services_, bytes, static_cast<int>(i), format.ending, refused);
      if (!reference.empty()) files.push_back(reference);
      if (refused.empty()) continue;
      reason = refused;
      job_.log(fmt::format("Picture {} was refused by the safety check: {}", i + 1, refused));
    }
    base::check(!files.empty(), ErrorKind::bad_input, "{}", reason);
    job_.output(files);
    return files;
  }

  JobWriter& job_;
  Services& services_;
  const ServedModel& model_;
  const Json settings_;
  const std::optional<store::Version> version_;
  std::vector<std::pair<std::filesystem::path, std::string>> names_;  ///< of adapters
};

}  // namespace

const ServedModel& served_model(const store::Job& job, store::Store& store) {
  if (const ServedModel* model = find_model(job.model)) return *model;
  base::check(trained_version(job, store).has_value(), ErrorKind::not_found, "{} has no version {} any more",
              base::printable(job.model), base::printable(job.version));
  return fine_tuned_model();
}

std::string store_picture(JobWriter& job, Services& services, std::string_view bytes, int index,
                          const std::string& ending, std::string& refused) {
  const std::string content_type = content_type_of(ending);
  if (services.safety.any() && !skips_safety(job.job().input, services.safety)) {
    auto reason = refusal(services.safety, bytes, content_type, job.job().input.value("prompt", ""));
    if (reason) {
      refused = std::move(*reason);
      return "";
    }
  }
  const store::StoredFile file = services.store.files->put({.name = fmt::format("out-{}.{}", index, ending),
                                                            .content_type = content_type,
                                                            .purpose = store::FilePurpose::output,
                                                            .job = job.job().id},
                                                           bytes);
  return store::file_reference(file.id);
}

JobResult run_prediction(JobWriter& job, Services& services) { return Drawing(job, services).run(); }

JobResult run_text(JobWriter& job) {
  constexpr size_t kMostPieces = 100;  // each is stored with all before it
  job.start();
  const std::string text = "hello there, " + job.job().input.value("text", "");
  job.log("Greeting");
  Json output = Json::array();
  for (size_t at = 0; at < text.size();) {
    const size_t blank = output.size() + 1 < kMostPieces ? text.find(' ', at + 1) : text.size();
    const size_t end = std::min(blank, text.size());
    output.push_back(text.substr(at, end - at));
    at = end;
    job.output(output);
  }
  job.bar("greet", 1, 1);
  return {.output = output};
}

}  // namespace calotype::worker
