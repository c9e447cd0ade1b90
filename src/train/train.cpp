#include "train/train.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <iterator>
#include <set>

#include "base/error.h"
#include "files/tar_writer.h"
#include "pipeline/memory_plan.h"
#include "train/autoencoder_task.h"
#include "train/initial_weights.h"
#include "train/memory_forecast.h"
#include "train/model_files.h"

namespace calotype::train {
namespace fs = std::filesystem;
using base::ErrorKind;
using weights::Component;

namespace {

/// Two processes in one work folder would write each other's checkpoints. The lock goes with the process, however it
/// ends; a folder that nothing was put into goes with the run.
class WorkFolder {
 public:
  explicit WorkFolder(fs::path folder) : folder_(std::move(folder)), lock_(folder_ / "lock") {
    std::error_code error;
    fs::create_directories(folder_, error);
    base::check(!error, error == std::errc::no_space_on_device ? ErrorKind::disk_full : ErrorKind::bad_input,
                "{}: cannot make this folder for checkpoints: {}", folder_.string(), error.message());
    descriptor_ = ::open(lock_.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    base::check(descriptor_ >= 0, ErrorKind::bad_input, "{}: cannot be written to: {}", folder_.string(),
                std::strerror(errno));
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    ::close(descriptor_);
    base::fail(ErrorKind::conflict, "{}: another process is training there; wait for it, or give another --output",
               folder_.string());
  }
  ~WorkFolder() {
    std::error_code ignored;
    const auto files = std::distance(fs::directory_iterator(folder_, ignored), fs::directory_iterator());
    if (files == 1 && fs::remove(lock_, ignored)) fs::remove(folder_, ignored);
    ::close(descriptor_);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

 private:
  fs::path folder_, lock_;
  int descriptor_ = -1;
};

/// Removes what a killed process was writing: temporary files and folders of outputs and of the work folder, which have
/// six random characters at their ends. Only under the lock; other runs may be writing beside this one's output.
void remove_leftovers(const TrainOptions& options) {
  const fs::path work = work_folder(options), beside = work.parent_path().empty() ? "." : work.parent_path();
  std::set<std::string> outputs;
  for (const fs::path& output : {options.output, best_path(options)})
    for (const char* more : {"", ".tar", ".new"}) outputs.insert(output.filename().string() + more + ".partial-");
  std::vector<fs::path> leftovers;
  for (const fs::path& folder : {beside, work, work / "latents", work / "prompts", work / "pictures"}) {
    std::error_code missing;
    for (const auto& entry : fs::directory_iterator(folder, missing)) {
      const std::string name = entry.path().filename().string(),
                        start = name.substr(0, std::max<size_t>(name.size(), 6) - 6);
      const bool ours =
          folder == beside ? outputs.contains(start) : start.ends_with(".partial-") || start == "unpacking-";
      if (ours) leftovers.push_back(entry.path());
    }
  }
  std::error_code ignored;
  for (const fs::path& path : leftovers) fs::remove_all(path, ignored);
}

DatasetOptions dataset_options(const TrainOptions& options, int64_t vae_factor) {
  const int multiple = static_cast<int>(options.mode == Mode::autoencoder ? vae_factor : 2 * vae_factor);
  return {.data = options.data,
          .unpack_folder = work_folder(options) / "pictures",
          .trigger = options.trigger,
          .resolutions = options.resolutions,
          .multiple = multiple,
          .caption_lines = options.caption_lines,
          .min_side = std::max(multiple, std::min(64, *std::ranges::min_element(options.resolutions))),
          .default_caption = options.default_caption};
}

void forget_earlier_run(const fs::path& folder) {
  for (const char* part : {"checkpoints", "log.jsonl", "report.html", "previews"}) fs::remove_all(folder / part);
}

/// Previews of the run itself are no pictures to learn from; they are among the data when the output is.
void leave_out_previews(Dataset& dataset, const TrainOptions& options) {
  const fs::path previews = fs::weakly_canonical(work_folder(options) / "previews");
  std::set<std::string> names;
  std::erase_if(dataset.examples, [&](const Example& example) {
    const bool preview = fs::weakly_canonical(example.file).parent_path() == previews;
    if (preview) names.insert(example.name);
    return preview;
  });
  for (FileReport& file : dataset.files)
    if (names.contains(file.name)) file = {.name = file.name, .reason = "a preview of this run"};
  base::check(!dataset.examples.empty(), ErrorKind::bad_input, "{}: holds nothing but previews of this run",
              options.data.string());
}

/// What a person should know of the data before hours are spent on them.
std::string data_note(const Dataset& dataset, const TrainOptions& options) {
  const auto unused = std::ranges::count_if(dataset.files, [](const FileReport& file) { return !file.used; });
  const auto warned =
      std::ranges::count_if(dataset.files, [](const FileReport& file) { return !file.warnings.empty(); });
  std::string out = fmt::format("{} pictures for training", dataset.examples.size());
  const auto first = std::ranges::find(dataset.files, false, &FileReport::used);
  if (unused)
    out += fmt::format("; {} of {} files are not used (first: {}, {})", unused, dataset.files.size(), first->name,
                       first->reason);
  if (warned) out += fmt::format("; {} files with warnings", warned);
  if (unused || warned) out += "; --check-data tells more";
  const bool masks = std::ranges::any_of(dataset.examples, [](const Example& e) { return !e.mask.empty(); });
  if (options.masked && !masks) out += "; --masked changes nothing, no picture has a mask";
  return out;
}

/// Overwriting a file of the model would cost the model.
void check_output_is_not_model(const pipeline::ModelPaths& paths, const pipeline::ModelBundle& bundle,
                               const fs::path& output) {
  std::vector<fs::path> all = {paths.model, paths.transformer, paths.vae, paths.clip, paths.t5};
  for (const auto& [component, part] : bundle.parts) all.insert(all.end(), part.files.begin(), part.files.end());
  std::error_code missing;
  for (const fs::path& path : all)
    base::check(!fs::equivalent(path, output, missing), ErrorKind::conflict,
                "{}: is the model that is to be trained, and would be overwritten; give another --output",
                output.string());
}

/// OUTPUT.tar with the members that hosted trainers give theirs.
void write_package(const TrainOptions& options, const TrainData& data) {
  const std::string top(kPackageFolder);
  const nlohmann::json config = nlohmann::json::parse(settings_text(options));
  std::string yaml;
  for (const auto& [key, value] : config.items()) yaml += fmt::format("{}: {}\n", key, value.dump());
  std::vector<files::TarEntry> entries = {{.name = top + "lora.safetensors", .file = options.output},
                                          {.name = top + "config.yaml", .bytes = yaml}};
  for (const Example& example : data.train)
    entries.push_back({.name = top + "captions/" + fs::path(example.name).stem().string() + ".txt",
                       .bytes = example.captions.front() + "\n"});
  files::write_tar(options.output.string() + ".tar", entries);
}

/// A model is saved beside copies of the parts that were not trained, so it cannot lie among them.
void check_apart(const fs::path& model, const TrainOptions& options) {
  if (options.mode == Mode::lora || !fs::is_directory(model)) return;
  const fs::path inner = fs::weakly_canonical(options.output), outer = fs::canonical(model);
  const bool inside = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
  base::check(!inside, ErrorKind::bad_input, "{}: lies inside the model {}; name another folder with --output",
              options.output.string(), model.string());
}

}  // namespace

Dataset training_dataset(const TrainOptions& options, int64_t vae_factor, const TrainHooks& hooks) {
  Dataset dataset = open_dataset(dataset_options(options, vae_factor), hooks.progress, hooks.cancel);
  leave_out_previews(dataset, options);
  return dataset;
}

TrainData split(const Dataset& dataset, const TrainOptions& options, int64_t vae_factor, const TrainHooks& hooks) {
  if (!options.validation_data.empty()) {
    DatasetOptions held_out = dataset_options(options, vae_factor);
    held_out.data = options.validation_data;
    TrainData data{.train = dataset.examples,
                   .validation = open_dataset(held_out, hooks.progress, hooks.cancel).examples};
    std::set<std::string> validation;
    for (const Example& example : data.validation) validation.insert(example.hash);
    std::erase_if(data.train, [&](const Example& example) { return validation.contains(example.hash); });
    base::check(!data.train.empty(), ErrorKind::bad_input, "{}: holds every picture of {}; nothing is left to train on",
                options.validation_data.string(), options.data.string());
    return data;
  }
  base::check(options.validation_split == 0 || dataset.examples.size() > 1, ErrorKind::bad_input,
              "{}: one picture can be used, and --validation-split needs two at least", options.data.string());
  // By content: the same pictures are held out when others come or go.
  std::vector<Example> by_hash = dataset.examples;
  std::ranges::sort(by_hash, {}, &Example::hash);
  const auto held_out =
      std::min(by_hash.size() - 1,
               static_cast<size_t>(std::ceil(options.validation_split * static_cast<double>(by_hash.size()))));
  TrainData data;
  for (const Example& example : dataset.examples) {
    const bool validates = std::find_if(by_hash.begin(), by_hash.begin() + static_cast<std::ptrdiff_t>(held_out),
                                        [&](const Example& other) { return other.hash == example.hash; }) !=
                           by_hash.begin() + static_cast<std::ptrdiff_t>(held_out);
    (validates ? data.validation : data.train).push_back(example);
  }
  return data;
}

TrainOptions with_model_defaults(TrainOptions options, const pipeline::ModelBundle& bundle) {
  if (!options.resolutions.empty()) return options;
  const auto side = static_cast<int>(vae::autoencoder_config(bundle.part(Component::vae)).sample_size);
  options.resolutions = side >= 1024 ? std::vector<int>{512, 768, 1024} : std::vector<int>{std::max(16, side)};
  return options;
}

pipeline::ModelBundle training_bundle(const pipeline::ModelPaths& paths, const TrainOptions& options) {
  pipeline::ModelPaths from = paths;
  if (lacks_weights(from.model)) {
    base::check(options.mode != Mode::lora, ErrorKind::bad_input,
                "{}: has no weights yet, and adapters correct existing ones; train it with --mode full first",
                from.model.string());
    const fs::path initial = work_folder(options) / "initial", fresh = work_folder(options) / "initial.new";
    // Until something was learned from them they are made anew: seed and configurations may have changed.
    const fs::path checkpoints = work_folder(options) / "checkpoints";
    if (options.restart || !fs::exists(checkpoints) || fs::is_empty(checkpoints)) fs::remove_all(initial);
    if (!fs::exists(initial)) fs::rename(with_initial_weights(from.model, fresh, options.seed), initial);
    from.model = initial;
  }
  if (options.mode == Mode::autoencoder) {
    pipeline::ModelBundle bundle = pipeline::open_partial_bundle(from);
    base::check(bundle.parts.contains(Component::vae), ErrorKind::not_found,
                "{}: holds no VAE to train; give --vae FILE", from.model.string());
    return bundle;
  }
  pipeline::ModelBundle bundle = pipeline::open_bundle(from);
  if (from.model != paths.model) bundle.name = fs::weakly_canonical(paths.model).filename().string();
  const flux::TransformerConfig config = bundle.transformer();
  base::check(config.in_channels == config.out_channels, ErrorKind::unsupported,
              "{}: this is a {} model, which needs a picture as condition; only text-to-image models can be trained",
              bundle.name, bundle.variant().name);
  if (options.mode == Mode::lora) {
    const flux::FluxTransformer shapes(bundle.part(Component::transformer), {.device = at::kMeta});
    new_adapters(shapes.adapter_slots(), options, at::kMeta);  // fails where no layer matches
  }
  return bundle;
}

TrainResult train(const pipeline::ModelPaths& paths, TrainOptions options, const pipeline::RuntimeOptions& runtime,
                  const TrainHooks& hooks) {
  check_options(options);
  check_apart(paths.model, options);
  const WorkFolder lock(work_folder(options));
  remove_leftovers(options);
  const pipeline::ModelBundle bundle = training_bundle(paths, options);
  check_output_is_not_model(paths, bundle, options.output);
  options = with_model_defaults(options, bundle);
  const int64_t factor = vae::autoencoder_config(bundle.part(Component::vae)).factor();
  const Dataset dataset = training_dataset(options, factor, hooks);
  const TrainData data = split(dataset, options, factor, hooks);
  if (hooks.note) hooks.note(data_note(dataset, options));
  if (options.restart) forget_earlier_run(work_folder(options));
  if (options.mode == Mode::autoencoder) {
    AutoencoderTask task(bundle, data, options, runtime);
    return TrainLoop(task, options, hooks).run();
  }
  if (options.mode == Mode::lora && !bundle.variant().guidance && hooks.note)
    hooks.note("this is a schnell model: adapters learn best on dev and can be used on schnell afterwards");
  options.recompute = decide_recompute(bundle, data, options, runtime);
  FlowTask task(bundle, data, options, training_load_options(bundle, options, runtime, largest_bucket(data)),
                {.progress = hooks.progress, .cancel = hooks.cancel});
  const TrainResult result = TrainLoop(task, options, hooks).run();
  if (options.tar) write_package(options, data);
  return result;
}

}  // namespace calotype::train
