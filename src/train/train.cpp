#include "train/train.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
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
/// ends.
class WorkFolder {
 public:
  explicit WorkFolder(const fs::path& folder) {
    fs::create_directories(folder);
    descriptor_ = ::open((folder / "lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    const bool locked = descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
    base::check(locked, ErrorKind::conflict,
                "{}: another process is training there; wait for it, or give another --output", folder.string());
  }
  ~WorkFolder() { ::close(descriptor_); }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

 private:
  int descriptor_ = -1;
};

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
  for (const char* part : {"checkpoints", "log.jsonl", "report.html", "previews", "initial"})
    fs::remove_all(folder / part);
}

}  // namespace

Dataset training_dataset(const TrainOptions& options, int64_t vae_factor, const TrainHooks& hooks) {
  return open_dataset(dataset_options(options, vae_factor), hooks.progress, hooks.cancel);
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

pipeline::ModelBundle training_bundle(const pipeline::ModelPaths& paths, const TrainOptions& options) {
  pipeline::ModelPaths from = paths;
  if (lacks_weights(from.model)) {
    base::check(options.mode != Mode::lora, ErrorKind::bad_input,
                "{}: has no weights yet, and adapters correct existing ones; train it with --mode full first",
                from.model.string());
    const fs::path initial = work_folder(options) / "initial";
    from.model = fs::exists(initial / "model_index.json") && !lacks_weights(initial)
                     ? initial
                     : with_initial_weights(from.model, initial, options.seed);
  }
  if (options.mode == Mode::autoencoder) {
    pipeline::ModelBundle bundle = pipeline::open_partial_bundle(from);
    base::check(bundle.parts.contains(Component::vae), ErrorKind::not_found,
                "{}: holds no VAE to train; give --vae FILE", from.model.string());
    return bundle;
  }
  pipeline::ModelBundle bundle = pipeline::open_bundle(from);
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
  const WorkFolder lock(work_folder(options));
  if (options.restart) forget_earlier_run(work_folder(options));
  const pipeline::ModelBundle bundle = training_bundle(paths, options);
  const int64_t factor = vae::autoencoder_config(bundle.part(Component::vae)).factor();
  const Dataset dataset = training_dataset(options, factor, hooks);
  const TrainData data = split(dataset, options, factor, hooks);
  if (options.mode == Mode::autoencoder) {
    AutoencoderTask task(bundle, data, options, runtime);
    return TrainLoop(task, options, hooks).run();
  }
  if (options.mode == Mode::lora && !bundle.variant().guidance && hooks.note)
    hooks.note("this is a schnell model: adapters learn best on dev and can be used on schnell afterwards");
  options.recompute = decide_recompute(bundle, data, options, runtime);
  FlowTask task(bundle, data, options, training_load_options(bundle, options, runtime, largest_bucket(data)),
                {.progress = hooks.progress, .cancel = hooks.cancel});
  return TrainLoop(task, options, hooks).run();
}

}  // namespace calotype::train
