#include "train/memory_forecast.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <malloc.h>
#include <torch/csrc/autograd/autograd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "adapters/lora_apply.h"
#include "pipeline/memory_plan.h"
#include "pipeline/processor.h"
#include "train/model_files.h"

namespace calotype::train {

using pipeline::bytes_text;
using weights::Component;

namespace {

// What plan_memory() counts for the program, which is measured here.
constexpr uint64_t kPlannedProgram = 400'000'000;

/// Memory of this process: all, or what no file lies behind.
struct Resident {
  int64_t all = 0, anonymous = 0;
};

Resident resident_now() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0, resident = 0, of_files = 0;
  statm >> pages >> resident >> of_files;
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  return {.all = resident * page, .anonymous = (resident - of_files) * page};
}

/// Follows the tensor memory of one device that this thread takes and gives back, and on the CPU what it costs the
/// process: tensors of many sizes leave gaps between them.
class TensorMemory : public c10::MemoryReportingInfoBase {
 public:
  explicit TensorMemory(at::Device device) : device_(device) {}
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device device) override {
    if (device.type() != device_.type()) return;
    now_ += size;
    peak_ = std::max(peak_, now_);
    constexpr int64_t kWorthALook = 1 << 20;
    if (device.is_cpu() && std::abs(size) >= kWorthALook) anonymous_ = std::max(anonymous_, resident_now().anonymous);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }
  int64_t anonymous() const { return anonymous_; }

 private:
  at::Device device_;
  int64_t now_ = 0, peak_ = 0, anonymous_ = 0;
};

struct Cost {
  double seconds = 0;
  int64_t bytes = 0;  ///< of tensors
  int64_t grown = 0;  ///< of the process, 0 on other devices
};

/// Memory and time of a piece of work that is done again and again; `clean_up` in between does not count. The first
/// time pages are read and kernels chosen, and gaps grow from time to time.
Cost measured(at::Device device, const std::function<void()>& work, const std::function<void()>& clean_up) {
  constexpr int kTimes = 3;
  ::malloc_trim(0);  // so that growing shows
  Cost cost;
  const int64_t anonymous = resident_now().anonymous;
  for (int i = 0; i < kTimes; ++i) {
    const auto memory = std::make_shared<TensorMemory>(device);
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, memory);
    const auto begin = std::chrono::steady_clock::now();
    work();
    cost.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    cost.bytes = memory->peak();
    if (device.is_cpu()) cost.grown = std::max(cost.grown, memory->anonymous() - anonymous);
    clean_up();
  }
  return cost;
}

int t5_tokens(const pipeline::ModelBundle& bundle, const TrainOptions& options) {
  return options.max_sequence_length ? options.max_sequence_length : static_cast<int>(bundle.text_tokens);
}

at::ScalarType compute_type(const pipeline::ModelBundle& bundle, const pipeline::RuntimeOptions& runtime) {
  return runtime.dtype.value_or(
      pipeline::default_dtype(bundle.part(Component::transformer).parameters(), runtime.device));
}

pipeline::MemoryPlan generation_plan(const pipeline::ModelBundle& bundle, const TrainOptions& options,
                                     const pipeline::RuntimeOptions& runtime, Bucket largest) {
  return pipeline::plan_memory(bundle,
                               {.dtype = compute_type(bundle, runtime),
                                .device = runtime.device,
                                .width = largest.width,
                                .height = largest.height,
                                .text_tokens = t5_tokens(bundle, options),
                                .batch = options.batch},
                               pipeline::available_memory(runtime.device));
}

/// Bytes per trained number beside the number itself: optimiser, average, and the gradient where it outlives a backward
/// pass.
double state_bytes(const TrainOptions& options) {
  double bytes = options.accumulate > 1 ? 4 : 0;
  if (options.optimizer == "adamw") bytes += 8;
  if (options.optimizer == "adamw8bit") bytes += 2.03;
  if (options.optimizer == "prodigy") bytes += 16;
  if (options.optimizer == "muon") bytes += 4;
  return bytes + (options.ema > 0 ? 4 : 0);
}

/// One step of a model with few blocks, at the run's size.
class Probe {
 public:
  Probe(const pipeline::ModelBundle& bundle, const TrainOptions& options, weights::LoadOptions load, Bucket bucket)
      : bundle_(bundle), options_(options), load_(load), bucket_(bucket) {}

  Cost step(int double_blocks, int single_blocks) const {
    flux::TransformerConfig config = bundle_.transformer();
    config.double_blocks = std::min(config.double_blocks, double_blocks);
    config.single_blocks = std::min(config.single_blocks, single_blocks);
    std::map<std::string, Tensor> trained;
    weights::LoadOptions load = load_;
    if (options_.mode == Mode::full) load.trained = &trained;
    pipeline::PromptEncoder encoder(bundle_);
    if (options_.text_encoders) encoder.load(load);
    const weights::Scope scope(bundle_.part(Component::transformer), load);
    const flux::FluxTransformer model(config, scope);
    std::vector<adapters::AdapterPair> pairs;
    if (options_.mode == Mode::lora) {
      TrainOptions all = options_;
      if (!double_blocks || !single_blocks || !options_.layers.empty()) all.layers.clear();
      pairs = new_adapters(model.adapter_slots(), all, load.device);
      adapters::attach({.pairs = pairs, .stored = static_cast<int>(pairs.size()), .where = "probe"}, 1.0,
                       model.adapter_slots(), load.device);
    }
    for (const adapters::AdapterPair& pair : pairs)
      trained.insert({{pair.stored_name + ".down", pair.down_RI}, {pair.stored_name + ".up", pair.up_OR}});
    const auto clear_gradients = [&] {
      if (options_.accumulate > 1) return;  // later batches of a step begin with gradients
      for (auto& [name, value] : trained) value.mutable_grad() = Tensor();
    };
    return measured(
        load.device, [&] { forward_and_backward(model, config, encoder); }, clear_gradients);
  }

 private:
  flux::Conditioning conditioning(const flux::TransformerConfig& config, pipeline::PromptEncoder& encoder) const {
    const int tokens = t5_tokens(bundle_, options_);
    if (options_.text_encoders)
      return encoder.encode(std::vector<std::string>(static_cast<size_t>(options_.batch)), tokens);
    const auto plain = at::TensorOptions().dtype(load_.dtype).device(load_.device);
    return {.text_BTE = at::zeros({options_.batch, tokens, config.text_width}, plain),
            .pooled_BP = at::zeros({options_.batch, config.pooled_width}, plain)};
  }

  void forward_and_backward(const flux::FluxTransformer& model, const flux::TransformerConfig& config,
                            pipeline::PromptEncoder& encoder) const {
    const auto factor = vae::autoencoder_config(bundle_.part(Component::vae)).factor();
    const flux::LatentSize size{
        .channels = config.out_channels / 4, .height = bucket_.height / factor, .width = bucket_.width / factor};
    flux::Conditioning cond = conditioning(config, encoder);
    cond.guidance = options_.guidance;
    const Tensor clean = at::zeros({options_.batch, size.channels, size.height, size.width},
                                   at::TensorOptions().dtype(at::kFloat).device(load_.device));
    const Noised noised = add_noise(clean, at::ones_like(clean), at::full({options_.batch}, 0.5f, at::kFloat));
    const auto loss_of_one = [&] {
      return flow_loss(model.forward(noised.x_BIC.to(load_.dtype), cond, noised.sigma_B, size), noised);
    };
    Tensor loss = loss_of_one();
    if (!options_.preserve.empty()) {  // what the base draws, and what the model draws in its place
      {
        const at::NoGradGuard no_grad;
        loss_of_one();
      }
      loss = loss + loss_of_one();
    }
    torch::autograd::backward({loss}, {});
    loss.item<float>();  // waits for the device
  }

  const pipeline::ModelBundle& bundle_;
  const TrainOptions& options_;
  weights::LoadOptions load_;
  Bucket bucket_;
};

/// A step of the whole model from those of small ones: every further block costs what one more did there.
Cost whole_model(const Probe& probe, const flux::TransformerConfig& config, Forecast& out) {
  const Cost one = probe.step(1, 1), with_double = config.double_blocks > 1 ? probe.step(2, 1) : one,
             with_single = config.single_blocks > 1 ? probe.step(1, 2) : one;
  const auto all = [](auto from, auto to, int blocks) { return std::max<decltype(from)>(0, to - from) * blocks; };
  const double doubles = all(one.seconds, with_double.seconds, config.double_blocks),
               singles = all(one.seconds, with_single.seconds, config.single_blocks),
               rest = std::max(0.0, one.seconds - all(one.seconds, with_double.seconds, 1) -
                                        all(one.seconds, with_single.seconds, 1));
  out.seconds = {{"double blocks", doubles}, {"single blocks", singles}, {"rest", rest}};
  const int64_t bytes = one.bytes + all(one.bytes, with_double.bytes, config.double_blocks - 1) +
                        all(one.bytes, with_single.bytes, config.single_blocks - 1);
  const int64_t probed = (one.bytes + with_double.bytes + with_single.bytes) / 3,
                gaps = std::max<int64_t>(0, (one.grown + with_double.grown + with_single.grown) / 3 - probed);
  // Some gaps come from the block that is at work, others lie between what blocks keep: half grows with the model.
  const double growth = (1 + static_cast<double>(bytes) / static_cast<double>(probed)) / 2;
  return {.seconds = doubles + singles + rest,
          .bytes = bytes + static_cast<int64_t>(static_cast<double>(gaps) * growth)};
}

int64_t trained_numbers(const pipeline::ModelBundle& bundle, const TrainOptions& options) {
  if (options.mode == Mode::full)
    return bundle.part(Component::transformer).parameters() +
           (options.text_encoders ? bundle.part(Component::clip).parameters() + bundle.part(Component::t5).parameters()
                                  : 0);
  const flux::FluxTransformer shapes(bundle.part(Component::transformer), {.device = at::kMeta});
  int64_t numbers = 0;
  for (const adapters::AdapterPair& pair : new_adapters(shapes.adapter_slots(), options, at::kMeta))
    numbers += pair.down_RI.numel() + pair.up_OR.numel();
  return numbers;
}

/// VAE at work on the largest picture: widest activations of the encoder, as decode_bytes() counts the decoder's.
uint64_t encode_bytes(const pipeline::ModelBundle& bundle, at::ScalarType dtype, Bucket bucket) {
  const vae::Autoencoder vae(bundle.part(Component::vae), {.dtype = dtype, .device = at::kMeta});
  return bundle.part(Component::vae).parameters() * c10::elementSize(dtype) +
         vae.decode_bytes(static_cast<int64_t>(bucket.width) * bucket.height);
}

uint64_t sum(const std::vector<ForecastLine>& lines) {
  uint64_t bytes = 0;
  for (const ForecastLine& line : lines) bytes += line.bytes;
  return bytes;
}

std::string lines_text(std::string_view title, const std::vector<ForecastLine>& lines) {
  std::string out = fmt::format("{}: {}\n", title, bytes_text(sum(lines)));
  for (const ForecastLine& line : lines) out += fmt::format("  {:28} {:>9}\n", line.name, bytes_text(line.bytes));
  return out;
}

nlohmann::json lines_json(const std::vector<ForecastLine>& lines) {
  nlohmann::json out = nlohmann::json::object();
  for (const ForecastLine& line : lines) out[line.name] = line.bytes;
  return out;
}

}  // namespace

Bucket largest_bucket(const TrainData& data) {
  Bucket largest;
  for (const Example& example : data.train)
    for (const Bucket bucket : example.buckets)
      if (bucket.width * bucket.height > largest.width * largest.height) largest = bucket;
  return largest;
}

uint64_t Forecast::peak() const { return std::max(sum(training), sum(preparation)); }

std::string Forecast::text() const {
  std::string out = lines_text("Before training (prompts and pictures are encoded)", preparation);
  out += lines_text("A training step", training);
  out += fmt::format("Peak: {}, free now: {}\n", bytes_text(peak()), bytes_text(available));
  out += fmt::format("A step: about {:.2f} s (", seconds_per_step);
  std::string separator;
  for (const auto& [name, part] : seconds) {
    out += fmt::format("{}{} {:.2f} s", separator, name, part);
    separator = ", ";
  }
  return out + fmt::format("); {} numbers are trained{}\n", trained_numbers,
                           recompute ? "; blocks are computed again in the backward pass" : "");
}

nlohmann::json Forecast::json() const {
  return {{"training", lines_json(training)},     {"preparation", lines_json(preparation)},
          {"peak_memory_bytes", peak()},          {"available_memory_bytes", available},
          {"seconds_per_step", seconds_per_step}, {"seconds", seconds},
          {"trained_numbers", trained_numbers},   {"recompute", recompute}};
}

weights::LoadOptions training_load_options(const pipeline::ModelBundle& bundle, const TrainOptions& options,
                                           const pipeline::RuntimeOptions& runtime, Bucket largest) {
  using Plain = weights::LoadOptions::Plain;
  const bool convert = generation_plan(bundle, options, runtime, largest).convert_once;
  return {.dtype = compute_type(bundle, runtime),
          .device = runtime.device,
          .plain = convert ? Plain::convert_once : Plain::convert_at_use,
          .training = true,
          .recompute = options.recompute.value_or(false)};
}

namespace {

/// What a step holds, from sizes alone.
struct StepSizes {
  uint64_t fixed = 0;   ///< weights, what is trained, its gradient and state
  uint64_t blocks = 0;  ///< what all blocks keep for the backward pass
  uint64_t inputs = 0;  ///< what they keep when they are computed again
  uint64_t block = 0;   ///< what one block keeps
};

StepSizes step_sizes(const pipeline::ModelBundle& bundle, const TrainOptions& options,
                     const pipeline::RuntimeOptions& runtime, Bucket bucket, const pipeline::MemoryPlan& plan) {
  const flux::TransformerConfig c = bundle.transformer();
  const auto factor = vae::autoencoder_config(bundle.part(Component::vae)).factor();
  const int64_t tokens = t5_tokens(bundle, options) + bucket.width * bucket.height / (4 * factor * factor);
  // What one block keeps for the backward pass, in numbers of the model's width per token: inputs, normed inputs, q, k
  // and v before and after rotation, attention, MLP before and after its activation, f32 copies for the adapters.
  constexpr uint64_t kKept = 32;
  const auto blocks = static_cast<uint64_t>(c.double_blocks + c.single_blocks);
  const uint64_t inputs =
      static_cast<uint64_t>(options.batch * tokens * c.width) * c10::elementSize(compute_type(bundle, runtime));
  const auto state =
      static_cast<uint64_t>(static_cast<double>(trained_numbers(bundle, options)) * (8 + state_bytes(options)));
  const uint64_t weights = options.mode == Mode::full ? 0 : plan.stages.at(1).total();
  return {.fixed = weights + state,
          .blocks = kKept * inputs * blocks,
          .inputs = inputs * blocks,
          .block = kKept * inputs};
}

}  // namespace

bool decide_recompute(const pipeline::ModelBundle& bundle, const TrainData& data, const TrainOptions& options,
                      const pipeline::RuntimeOptions& runtime) {
  if (options.recompute) return *options.recompute;
  const Bucket bucket = largest_bucket(data);
  const pipeline::MemoryPlan plan = generation_plan(bundle, options, runtime, bucket);
  const StepSizes step = step_sizes(bundle, options, runtime, bucket, plan);
  return step.fixed + step.blocks > plan.available / 10 * 9;
}

uint64_t rough_memory(const pipeline::ModelBundle& bundle, const TrainOptions& options,
                      const pipeline::RuntimeOptions& runtime, Bucket largest) {
  const pipeline::MemoryPlan plan = generation_plan(bundle, options, runtime, largest);
  const StepSizes step = step_sizes(bundle, options, runtime, largest, plan);
  const bool recompute = options.recompute.value_or(step.fixed + step.blocks > plan.available / 10 * 9);
  // Beside what blocks keep, the one at work has its gradients.
  const uint64_t training = step.fixed + (recompute ? step.inputs + step.block : step.blocks) + step.block;
  return std::max(training, plan.stages.at(0).total());
}

Forecast forecast(const pipeline::ModelBundle& bundle, const TrainData& data, const TrainOptions& given,
                  const pipeline::RuntimeOptions& runtime) {
  TrainOptions options = given;
  const Bucket bucket = largest_bucket(data);
  options.recompute = decide_recompute(bundle, data, options, runtime);
  const flux::TransformerConfig config = bundle.transformer();
  const pipeline::MemoryPlan plan = generation_plan(bundle, options, runtime, bucket);
  const Resident before = resident_now();
  Forecast out{.recompute = *options.recompute, .available = plan.available};
  out.trained_numbers = trained_numbers(bundle, options);

  const Cost step =
      whole_model(Probe(bundle, options, training_load_options(bundle, options, runtime, bucket), bucket), config, out);
  out.seconds_per_step = step.seconds * options.accumulate;
  for (const Component part : {Component::transformer, Component::clip, Component::t5})
    bundle.part(part).release_pages();
  const Resident after = resident_now();  // with the libraries' code that training needs
  const auto program = static_cast<uint64_t>(before.anonymous + after.all - after.anonymous);

  const auto numbers = static_cast<double>(out.trained_numbers);
  out.training = {{"program", program},
                  {"base weights", options.mode == Mode::full ? 0 : plan.stages.at(1).weights},
                  {"trained numbers", static_cast<uint64_t>(numbers * 4)},
                  {"optimiser, average", static_cast<uint64_t>(numbers * state_bytes(options))},
                  {"activations, gradients", static_cast<uint64_t>(step.bytes)}};
  const pipeline::MemoryStage& text = plan.stages.at(0);
  const uint64_t text_work = text.work - kPlannedProgram;
  const uint64_t pictures = encode_bytes(bundle, compute_type(bundle, runtime), bucket);
  if (!options.text_encoders && text.weights + text_work > pictures)
    out.preparation = {{"program", program}, {"text encoders", text.weights}, {"their work", text_work}};
  else
    out.preparation = {{"program", program}, {"VAE encoder and its work", pictures}};
  return out;
}

}  // namespace calotype::train
