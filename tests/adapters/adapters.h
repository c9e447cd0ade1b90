// What the tests of adapters share: the golden adapters, the layers of the golden model, files made of other files.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>

#include "adapters/lora_apply.h"
#include "base/error.h"
#include "flux/flux_transformer.h"
#include "pipeline/model_bundle.h"
#include "support/golden.h"
#include "weights/tensor_writer.h"

namespace calotype::adapters {

using Tensors = std::map<std::string, at::Tensor>;

inline std::filesystem::path adapter_path(const std::string& layout) {
  return test::golden_path("training/adapter_" + layout + ".safetensors");
}

/// The layers of tests/golden/models/m1_dev, without its weights.
inline weights::AdapterSlots slots_of_m1() {
  const auto bundle = pipeline::open_bundle({.model = test::golden_path("models/m1_dev")});
  const flux::Scope scope(bundle.part(weights::Component::transformer), {.device = at::kMeta});
  return flux::FluxTransformer(bundle.transformer(), scope).adapter_slots();
}

/// What the corrections of a slot add to the layer's weight: [out, in].
inline at::Tensor difference(const weights::AdapterSlot& slot) {
  at::Tensor sum = at::zeros({slot.shape.out, slot.shape.in}, at::kDouble);
  for (const weights::LowRank& c : slot.corrections) {
    const at::Tensor delta = c.scale * at::mm(c.up_OR.to(at::kDouble), c.down_RI.to(at::kDouble));
    sum.narrow(0, c.first_row, delta.size(0)) += delta;
  }
  return sum;
}

/// By layer, of every layer that the adapter changes.
inline Tensors differences(const Adapter& adapter, double strength = 1) {
  const weights::AdapterSlots slots = slots_of_m1();
  attach(adapter, strength, slots, at::kCPU);
  Tensors out;
  for (const auto& [layer, slot] : slots)
    if (!slot->corrections.empty()) out[layer] = difference(*slot);
  return out;
}

inline void expect_same_differences(const Tensors& got, const Tensors& want, const std::string& what) {
  EXPECT_EQ(got.size(), want.size()) << what;
  for (const auto& [layer, delta] : want) {
    ASSERT_TRUE(got.contains(layer)) << what << " lacks " << layer;
    test::expect_close(got.at(layer), delta, {.relative = 1e-6}, what + ": " + layer);
  }
}

/// The message of the base::Error that `work` throws, after checking its kind.
inline std::string refusal(base::ErrorKind kind, const std::function<void()>& work) {
  try {
    work();
  } catch (const base::Error& error) {
    EXPECT_EQ(base::name(error.kind()), base::name(kind)) << error.what();
    EXPECT_EQ(base::printable(error.what(), 10'000), error.what()) << "one line of text";
    return error.what();
  }
  ADD_FAILURE() << "accepted, expected " << base::name(kind);
  return "";
}

}  // namespace calotype::adapters
