#include "worker/training_job.h"

#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/tar_writer.h"
#include "store/file_reference.h"
#include "train/train.h"
#include "worker/prediction_settings.h"
#include "worker/trained_version.h"
#include "worker/training_data.h"

namespace calotype::worker {
namespace fs = std::filesystem;
using base::ErrorKind;
using train::TrainOptions;

namespace {

fs::path work_folder(const store::Store& store, const std::string& job) { return store.data / "work" / job; }

class Training {
 public:
  Training(JobWriter& job, Services& services, const std::function<void()>& between_steps)
      : job_(job),
        services_(services),
        between_steps_(between_steps),
        model_(*find_model(job.job().model)),
        settings_(with_defaults(model_, job.job().input)),
        folder_(work_folder(services.store, job.job().id)) {}

  JobResult run() {
    check_destination();
    const Backing backing =
        weights_behind(services_.models, "black-forest-labs/flux-" + model_.backend, model_.backend);
    const pipeline::ModelPaths paths = model_paths(backing.weights);
    const pipeline::ModelBundle bundle = pipeline::open_bundle(paths);
    const auto side = static_cast<int>(vae::autoencoder_config(bundle.part(weights::Component::vae)).sample_size);
    TrainingPlan plan = training_plan(settings_, side);
    job_.log(backing.sentence);
    for (const std::string& note : plan.notes) job_.log("Note: " + note);
    job_.start();
    trained_ = {.adapter = folder_ / "lora.safetensors",
                .tar = folder_ / "lora.safetensors.tar",
                .trigger = plan.options.trigger,
                .base = bundle.name,
                .variant = std::string(bundle.variant().guidance ? "dev" : "schnell"),
                .about = {{"steps", plan.options.steps}, {"rank", plan.options.rank}}};
    fs::create_directories(folder_);
    const std::string finished = settings_.value("skip_training_and_use_pretrained_hf_lora_url", "");
    if (finished.empty())
      learn(paths, plan.options, runtime_for(backing.weights, services_.runtime));
    else
      take_finished(finished);
    return finish(backing);
  }

 private:
  /// Before minutes of work; the server checks the same, but models may have gone since.
  void check_destination() const {
    base::check(job_.job().destination.find('/') != std::string::npos, ErrorKind::bad_input,
                "the training has no destination, expected a model like me/flux-mine");
    const std::string repository = settings_.value("hf_repo_id", "");
    base::check(repository.empty() || job_.claim().secrets.contains("hf_token"), ErrorKind::bad_input,
                "hf_repo_id is {} and there is no hf_token; give the key that may write there",
                base::printable(repository));
  }

  void learn(const pipeline::ModelPaths& paths, TrainOptions& options, const pipeline::RuntimeOptions& runtime) {
    options.data = pictures();
    options.output = trained_.adapter;
    if (settings_.value("autocaption", false) || settings_.contains("autocaption_prefix") ||
        settings_.contains("autocaption_suffix"))
      options.default_caption = default_caption(settings_.value("autocaption_prefix", ""), options.trigger,
                                                settings_.value("autocaption_suffix", ""));
    // Learning wants many times the memory that drawing does.
    services_.loaded.drop_all();
    const train::TrainResult result = train_with_names(paths, options, runtime);
    job_.log(fmt::format("Trained {} steps, loss {:.4f}, {:.2f} s/step", result.steps, result.loss,
                         result.seconds_per_step));
    trained_.about["loss"] = result.loss;
    // The next training of this kind is forecast from these.
    metrics_ = {{"seconds_per_step", result.seconds_per_step}};
    if (runtime.device.is_cpu()) metrics_["peak_memory_bytes"] = result.peak_memory;
  }

  train::TrainResult train_with_names(const pipeline::ModelPaths& paths, const TrainOptions& options,
                                      const pipeline::RuntimeOptions& runtime) try {
    return train::train(paths, options, runtime, hooks(options));
  } catch (const base::Error& error) {
    throw base::Error(error.kind(), with_names(error.what()));
  }

  /// Messages name the data as the input does.
  std::string with_names(const std::string& text) const {
    return with_name(text, folder_ / "pictures", "input_images");
  }

  /// Unpacked once; the mark is written last.
  fs::path pictures() {
    const fs::path folder = folder_ / "pictures", mark = folder_ / "pictures.unpacked";
    if (fs::exists(mark)) return folder;
    job_.progress("unpack", 0, 0);
    const fs::path archive =
        services_.files.fetch(settings_.at("input_images"), folder_ / "images.zip", &job_.cancel_token());
    const TrainingData data = unpack_training_data(archive, folder, &job_.cancel_token());
    for (const std::string& note : data.notes) job_.log("Warning: " + note);
    job_.log(fmt::format("input_images: {} files and {} captions", data.pictures, data.captions));
    if (data.captions < data.pictures && settings_.value("autocaption", false))
      job_.log(
          "Note: autocaption: no captioner is built in; pictures without a caption get the trigger word with "
          "autocaption_prefix and autocaption_suffix");
    std::error_code ignored;
    fs::remove(folder_ / "images.zip", ignored);
    base::write_file(mark, "");
    return folder;
  }

  train::TrainHooks hooks(const TrainOptions& options) {
    train::TrainHooks out;
    out.cancel = &job_.cancel_token();
    out.note = [this](std::string_view note) {
      std::string text(note);
      const size_t hint = text.find("; --check-data");  // of the command line
      job_.log("Note: " + without_dashes(with_names(text.substr(0, hint))));
    };
    out.progress = [this](const base::ProgressEvent& event) {
      if (event.stage != "train") job_.progress(event.stage, event.done, event.total);
    };
    out.log = [this, total = options.steps](const Json& line) { log(line, total); };
    out.previews = [this](int64_t step, const std::vector<train::Preview>& previews) {
      for (const train::Preview& each : previews) job_.sample(each.picture, step, each.prompt);
    };
    out.between_steps = between_steps_;
    return out;
  }

  void log(const Json& line, int64_t total) {
    if (line.contains("loss") && line.contains("lr")) {
      const Json& loss = line["loss"];
      if (!std::exchange(began_, true))
        job_.begin("train", line["step"].get<int64_t>() - 1, total, line.value("seconds", 0.0));
      job_.bar("train", line["step"].get<int64_t>(), total,
               fmt::format("lr: {:.1e} loss: {}", line["lr"].get<double>(),
                           loss.is_number() ? fmt::format("{:.1e}", loss.get<double>()) : "nan"));
    } else if (line.contains("validation_loss") && line["validation_loss"].is_number()) {
      job_.log(fmt::format("validation loss {:.4f}", line["validation_loss"].get<double>()));
    }
  }

  void take_finished(const std::string& url) {
    job_.log("skip_training_and_use_pretrained_hf_lora_url: no training, the adapter is fetched");
    const fs::path found = services_.loras.find(url, {}, &job_.cancel_token());
    fs::copy_file(found, trained_.adapter, fs::copy_options::overwrite_existing);
    adapters::read_adapter(trained_.adapter);  // is it one?
    files::write_tar(trained_.tar,
                     {{.name = std::string(train::kPackageFolder) + "lora.safetensors", .file = trained_.adapter}});
    trained_.about = {{"source", hub::shown_url(url)}};
  }

  JobResult finish(const Backing& backing) {
    const store::Version version = register_version(services_.store, job_.job(), trained_);
    const std::string repository = settings_.value("hf_repo_id", "");
    if (!repository.empty()) push(repository, backing);
    const Json output = {{"version", fmt::format("{}/{}:{}", version.owner, version.name, version.id)},
                         {"weights", store::file_reference(version.about.value("weights_file", ""))}};
    metrics_["weights"] = backing.weights.shown_name();
    return {.output = output, .metrics = metrics_};
  }

  /// The adapter is safe by now: a hub that refuses costs the upload, not the training.
  void push(const std::string& repository, const Backing& backing) try {
    job_.log("Uploading to " + base::printable(repository));
    const hub::PushResult pushed =
        push_adapter(trained_, {.access = {.endpoint = services_.hub,
                                           .token = job_.claim().secrets.at("hf_token"),
                                           .cancel = &job_.cancel_token()},
                                .repository = repository,
                                .samples = samples(backing),
                                .folder = folder_ / "hub"});
    job_.log("Uploaded: " + pushed.page);
  } catch (const base::Error& error) {
    if (error.kind() == ErrorKind::canceled) throw;
    job_.log(fmt::format("Warning: the upload to {} failed, the version is usable here: {}",
                         base::printable(repository), error.what()));
  }

  /// Two pictures of the trigger word for the model card.
  std::vector<SamplePicture> samples(const Backing& backing) {
    pipeline::TextToImage& flux = services_.loaded.get(backing.weights);
    const std::string prompt = trained_.trigger.empty() ? "a picture" : trained_.trigger;
    const pipeline::GenerateResult result =
        flux.generate({.prompt = prompt,
                       .seed = 1,
                       .count = 2,
                       .loras = {{.path = trained_.adapter}}},
                      {.progress = {}, .cancel = &job_.cancel_token(), .preview = {}, .latents = {}});
    std::vector<SamplePicture> samples;
    for (size_t i = 0; i < result.pictures.size(); ++i) {
      samples.push_back({folder_ / fmt::format("sample-{}.webp", i), prompt});
      base::write_file(samples.back().file, image::encode(result.pictures[i].image, output_format(settings_).encode));
    }
    return samples;
  }

  JobWriter& job_;
  Services& services_;
  const std::function<void()>& between_steps_;
  const ServedModel& model_;
  const Json settings_;
  const fs::path folder_;
  TrainedAdapter trained_;
  Json metrics_ = Json::object();
  bool began_ = false;  ///< the first step of this run is done
};

}  // namespace

JobResult run_training(JobWriter& job, Services& services, const std::function<void()>& between_steps) {
  const ServedModel* model = find_model(job.job().model);
  base::check(model && model->task == Task::trainer, ErrorKind::bad_input,
              "{} is no trainer; use ostris/flux-dev-lora-trainer", base::printable(job.job().model));
  return Training(job, services, between_steps).run();
}

void remove_training_files(const store::Store& store, const std::string& job) {
  std::error_code ignored;
  fs::remove_all(work_folder(store, job), ignored);
}

void remove_finished_training_files(const store::Store& store) {
  std::vector<std::string> over;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(store.data / "work", ignored)) {
    const std::string id = entry.path().filename().string();
    const auto job = store.jobs->find(id);
    if (job && store::is_terminal(job->status)) over.push_back(id);
  }
  for (const std::string& id : over) remove_training_files(store, id);
}

}  // namespace calotype::worker
