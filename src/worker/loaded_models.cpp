#include "worker/loaded_models.h"

#include <algorithm>

#include "pipeline/memory_plan.h"

namespace calotype::worker {
namespace {

/// Bytes of all parts as stored: near enough to what they take once loaded.
uint64_t stored_bytes(const pipeline::ModelBundle& bundle) {
  std::error_code ignored;
  uint64_t bytes = 0;
  for (const auto& [component, part] : bundle.parts)
    for (const auto& file : part.files) {
      const auto size = std::filesystem::file_size(file, ignored);
      if (!ignored) bytes += size;
    }
  return bytes;
}

}  // namespace

pipeline::ModelPaths model_paths(const LocalWeights& weights) {
  return {.model = weights.model,
          .transformer = weights.transformer,
          .vae = weights.vae,
          .clip = weights.clip,
          .t5 = weights.t5};
}

pipeline::RuntimeOptions runtime_for(const LocalWeights& weights, const pipeline::RuntimeOptions& base) {
  pipeline::RuntimeOptions out = base;
  if (weights.dtype == "f32") out.dtype = at::kFloat;
  if (weights.dtype == "bf16") out.dtype = at::kBFloat16;
  if (weights.dtype == "f16") out.dtype = at::kHalf;
  return out;
}

pipeline::TextToImage& LoadedModels::get(const LocalWeights& weights) {
  const auto found = std::ranges::find(models_, weights, &Loaded::weights);
  if (found != models_.end()) {
    models_.splice(models_.begin(), models_, found);
    return *models_.front().model;
  }
  pipeline::ModelBundle bundle = pipeline::open_bundle(model_paths(weights));
  const uint64_t wanted = 2 * stored_bytes(bundle);  // with room for activations
  while (!models_.empty() && pipeline::available_memory(runtime_.device) < wanted) models_.pop_back();
  auto model = std::make_unique<pipeline::TextToImage>(std::move(bundle), runtime_for(weights, runtime_));
  models_.push_front({weights, std::move(model)});
  return *models_.front().model;
}

}  // namespace calotype::worker
