#include "adapters/lora_apply.h"

#include <ATen/ATen.h>

#include <utility>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "files/tensor_file.h"

namespace calotype::adapters {

using base::check;
using base::ErrorKind;
using base::printable;
using files::shape_text;

namespace {

// The only layers that one published variant has and another lacks.
bool is_optional(const AdapterPair& pair) { return pair.layer.starts_with("guidance_in."); }

const weights::AdapterSlot* slot_of(const AdapterPair& pair, const weights::AdapterSlots& slots) {
  const auto found = slots.find(pair.layer);
  return found == slots.end() ? nullptr : found->second.get();
}

bool fits(const AdapterPair& pair, const weights::LinearShape& shape) {
  return pair.down_RI.size(1) == shape.in && pair.up_OR.size(0) == rows_of(pair.part, pair.parts, shape).count;
}

size_t stored_layers(const std::vector<AdapterPair>& pairs) {
  std::set<std::string> names;
  for (const AdapterPair& pair : pairs) names.insert(pair.stored_name);
  return names.size();
}

/// When nothing fits, one sentence about the whole file says more than the first of a hundred shapes.
void check_family(const Adapter& adapter, const weights::AdapterSlots& slots) {
  const AdapterPair* misfit = nullptr;
  for (const AdapterPair& pair : adapter.pairs) {
    const weights::AdapterSlot* slot = slot_of(pair, slots);
    if (slot && fits(pair, slot->shape)) return;
    if (slot && !misfit) misfit = &pair;
  }
  check(misfit != nullptr, ErrorKind::conflict, "{}: none of {} adapter layers belongs to this model (first: {})",
        adapter.where, stored_layers(adapter.pairs),
        adapter.pairs.empty() ? "" : printable(adapter.pairs.front().stored_name));
  const weights::LinearShape shape = slot_of(*misfit, slots)->shape;
  base::fail(
      ErrorKind::conflict,
      "{}: none of {} adapter layers belongs to this model: {} has input {} and output {}, the model's {} has {} "
      "and {}; the adapter was made for another model family",
      adapter.where, stored_layers(adapter.pairs), printable(misfit->stored_name), misfit->down_RI.size(1),
      misfit->up_OR.size(0), misfit->layer, shape.in, rows_of(misfit->part, misfit->parts, shape).count);
}

void check_blocks(const Adapter& adapter, const weights::AdapterSlots& slots) {
  std::vector<std::string> missing;
  for (const AdapterPair& pair : adapter.pairs)
    if (!slot_of(pair, slots) && !is_optional(pair)) missing.push_back(pair.stored_name);
  check(missing.empty(), ErrorKind::conflict,
        "{}: {} of {} adapter layers belong to blocks that this model does not have (first: {}); the adapter was made "
        "for a larger model and is not applied in part",
        adapter.where, missing.size(), stored_layers(adapter.pairs), missing.empty() ? "" : printable(missing.front()));
}

void check_shape(const Adapter& adapter, const AdapterPair& pair, const weights::LinearShape& shape) {
  const int64_t rows = rows_of(pair.part, pair.parts, shape).count, rank = pair.down_RI.size(0);
  check(pair.down_RI.size(1) == shape.in, ErrorKind::conflict,
        "{}: the down matrix of {} has shape {}, expected {} (the input of {}); the adapter was made for another model",
        adapter.where, printable(pair.stored_name), shape_text(pair.down_RI.sizes().vec()),
        shape_text({rank, shape.in}), pair.layer);
  check(pair.up_OR.size(0) == rows, ErrorKind::conflict,
        "{}: the up matrix of {} has shape {}, expected {} (the output of {}); the adapter was made for another model",
        adapter.where, printable(pair.stored_name), shape_text(pair.up_OR.sizes().vec()), shape_text({rows, rank}),
        pair.layer);
}

}  // namespace

Rows rows_of(int part, int parts, const weights::LinearShape& shape) {
  if (parts == 1) return {0, shape.out};
  // q, k and v are as wide as their input; what is left of linear1 is the MLP.
  const int64_t width = parts == 3 ? shape.out / 3 : shape.in;
  if (part < 3) return {part * width, width};
  return {3 * width, shape.out - 3 * width};
}

Applied attach(const Adapter& adapter, double strength, const weights::AdapterSlots& slots, at::Device device) {
  check(std::isfinite(strength), ErrorKind::bad_input, "{}: the strength {} is not a number", adapter.where, strength);
  check_family(adapter, slots);
  check_blocks(adapter, slots);
  for (const AdapterPair& pair : adapter.pairs)
    if (const auto* slot = slot_of(pair, slots)) check_shape(adapter, pair, slot->shape);

  Applied done{.total = adapter.stored};
  std::set<std::string> applied;
  for (const AdapterPair& pair : adapter.pairs) {
    const auto found = slots.find(pair.layer);
    if (found == slots.end()) {
      done.unmatched.push_back(pair.stored_name);
      continue;
    }
    weights::AdapterSlot& slot = *found->second;
    slot.corrections.push_back({.down_RI = pair.down_RI.to(device, at::kFloat),
                                .up_OR = pair.up_OR.to(device, at::kFloat),
                                .scale = strength * pair.scale,
                                .first_row = rows_of(pair.part, pair.parts, slot.shape).first});
    applied.insert(pair.stored_name);
  }
  done.applied = static_cast<int>(applied.size());
  return done;
}

void detach_all(const weights::AdapterSlots& slots) {
  for (const auto& [layer, slot] : slots) slot->corrections.clear();
}

WithoutAdapters::WithoutAdapters(const weights::AdapterSlots& slots) : slots_(slots) {
  for (const auto& [name, slot] : slots_) kept_.push_back(std::exchange(slot->corrections, {}));
}

WithoutAdapters::~WithoutAdapters() {
  auto kept = kept_.begin();
  for (const auto& [name, slot] : slots_) slot->corrections = std::move(*kept++);
}

}  // namespace calotype::adapters
