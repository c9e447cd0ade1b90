#include "pipeline/memory_plan.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "vae/autoencoder.h"
#include "weights/unpack.h"

namespace calotype::pipeline {

using weights::Component;
using weights::TensorIndex;

namespace {

// LibTorch with its kernels, thread stacks, and allocator slack.
constexpr uint64_t kProgram = 400'000'000;

/// Bytes that a part's weights occupy, and the largest matrix that is unpacked for one use.
struct Resident {
  uint64_t weights = 0, unpacked = 0;
};

Resident resident(const TensorIndex& index, const MemoryRequest& request, bool convert_once) {
  Resident out;
  const at::ScalarType dtype = request.dtype;
  const uint64_t item = c10::elementSize(dtype);
  const bool stays_packed = request.device.is_cpu();
  for (const auto& [name, source] : index.tensors) {
    uint64_t elements = 0;
    for (const auto& part : source.parts) elements += static_cast<uint64_t>(part.tensor.elements());
    const bool ready = weights::unpacks_in_place(source, dtype);
    const bool small = source.shape().size() < 2;  // norms and biases are always converted
    if (stays_packed && !ready && !small && (weights::is_packed(source) || !convert_once)) {
      out.weights += source.bytes();
      out.unpacked = std::max(out.unpacked, elements * item);
    } else {
      out.weights += ready ? source.bytes() : elements * item;
    }
  }
  return out;
}

uint64_t transformer_work(const flux::TransformerConfig& c, const MemoryRequest& r, int64_t tokens) {
  // A single block at its widest: input, linear1's output, q k v, attention output, joined output (bench/results.md has
  // the measured peak).
  const int64_t per_token = 8 * c.width + 2 * (3 * c.width + c.mlp_width);
  return static_cast<uint64_t>(r.batch * tokens * per_token) * c10::elementSize(r.dtype);
}

uint64_t text_work(const ModelBundle& bundle, const MemoryRequest& r) {
  const auto heads =
      bundle.part(Component::t5).shape("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight").at(1);
  const auto scores = static_cast<uint64_t>(heads * r.text_tokens * r.text_tokens);
  return scores * (4 + 3 * c10::elementSize(r.dtype));
}

uint64_t read_number(const char* path) {
  std::ifstream in(path);
  uint64_t value = 0;
  return in >> value ? value : 0;
}

uint64_t free_on_accelerator(at::Device device) {
  at::globalContext().lazyInitDevice(device.type());  // before that its allocator knows no device
  const at::DeviceIndex index = device.has_index() ? device.index() : at::DeviceIndex{0};
  // What tensors gave back stays with LibTorch's allocator and serves the next ones.
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto held = at::accelerator::getDeviceStats(index);
  const int64_t unused = held.reserved_bytes[kAll].current - held.allocated_bytes[kAll].current;
  return at::accelerator::getMemoryInfo(index).first + static_cast<uint64_t>(std::max<int64_t>(0, unused));
}

}  // namespace

uint64_t MemoryPlan::peak() const {
  uint64_t peak = 0;
  for (const MemoryStage& stage : stages) peak = std::max(peak, stage.total());
  return peak;
}

std::string MemoryPlan::text() const {
  std::string out;
  for (const MemoryStage& stage : stages)
    out += fmt::format("{}{}: {} weights + {} work{}", out.empty() ? "" : "; ", stage.name, bytes_text(stage.weights),
                       bytes_text(stage.work), stage.freed_after.empty() ? "" : ", then frees " + stage.freed_after);
  return out;
}

void MemoryPlan::refuse_if_too_large() const {
  if (peak() <= available) return;
  const auto worst = std::ranges::max_element(stages, {}, &MemoryStage::total);
  base::fail(base::ErrorKind::out_of_memory, "not enough memory: the {} need {}, {} are free ({}). {}", worst->name,
             bytes_text(worst->total()), bytes_text(available), text(),
             worst->work > worst->weights
                 ? "Make the picture smaller or draw fewer at a time."
                 : "Use a smaller file of the same model, such as GGUF q8_0 or q4_0 (`calotype "
                   "convert IN OUT --type q8_0`), or close other programs.");
}

uint64_t available_memory(at::Device device) {
  if (device.is_cuda()) return free_on_accelerator(device);
  std::ifstream meminfo("/proc/meminfo");
  uint64_t available = 0;
  for (std::string key; meminfo >> key;)
    if (key == "MemAvailable:" && meminfo >> available) break;
  available *= 1024;
  const uint64_t limit = read_number("/sys/fs/cgroup/memory.max"), used = read_number("/sys/fs/cgroup/memory.current");
  if (limit > used) available = std::min(available, limit - used);
  return available;
}

MemoryPlan plan_memory(const ModelBundle& bundle, const MemoryRequest& request, uint64_t available) {
  MemoryPlan plan{.available = available};
  const auto transformer = bundle.transformer();
  const vae::AutoencoderConfig vae_config = vae::autoencoder_config(bundle.part(Component::vae));
  const vae::Autoencoder vae(bundle.part(Component::vae), {.dtype = request.dtype, .device = at::kMeta});
  const int64_t pixels = request.width * request.height, patch = 2 * vae_config.factor();
  const int64_t tokens = request.text_tokens + pixels / (patch * patch);

  const auto text_stage = [&](bool convert_once) {
    const Resident clip = resident(bundle.part(Component::clip), request, convert_once);
    const Resident t5 = resident(bundle.part(Component::t5), request, convert_once);
    return MemoryStage{"text encoders", clip.weights + t5.weights,
                       text_work(bundle, request) + std::max(clip.unpacked, t5.unpacked) + kProgram, "T5 and CLIP"};
  };
  const auto denoise_stage = [&](bool convert_once) {
    const Resident r = resident(bundle.part(Component::transformer), request, convert_once);
    return MemoryStage{"transformer", r.weights, transformer_work(transformer, request, tokens) + r.unpacked + kProgram,
                       "the transformer"};
  };
  plan.convert_once = text_stage(true).total() <= available && denoise_stage(true).total() <= available;
  plan.stages = {text_stage(plan.convert_once), denoise_stage(plan.convert_once)};

  const Resident vae_weights = resident(bundle.part(Component::vae), request, true);
  MemoryStage decode{"VAE decode", vae_weights.weights, vae.decode_bytes(pixels) + kProgram, ""};
  if (decode.total() > available) {
    plan.tiled_decode = true;
    const vae::Tiling tiling;
    const int64_t side = tiling.tile * vae_config.factor();
    decode.work = vae.decode_bytes(std::min(pixels, side * side)) + static_cast<uint64_t>(pixels) * 3 * 8 + kProgram;
  }
  plan.stages.push_back(decode);
  return plan;
}

uint64_t peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

std::string bytes_text(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 1e9) return fmt::format("{:.1f} GB", value / 1e9);
  return fmt::format("{:.0f} MB", std::max(1.0, value / 1e6));
}

}  // namespace calotype::pipeline
