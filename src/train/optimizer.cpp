#include "train/optimizer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

#include "base/error.h"
#include "files/tensor_file.h"
#include "train/adamw.h"
#include "train/adamw_8bit.h"
#include "train/muon.h"
#include "train/prodigy.h"
#include "train/saved_state.h"

namespace calotype::train {
namespace {

using base::ErrorKind;

constexpr std::array<std::pair<OptimizerKind, std::string_view>, 4> kNames = {{{OptimizerKind::adamw, "adamw"},
                                                                               {OptimizerKind::adamw8bit, "adamw8bit"},
                                                                               {OptimizerKind::prodigy, "prodigy"},
                                                                               {OptimizerKind::muon, "muon"}}};

void check_options(const OptimizerOptions& o) {
  const auto fraction = [](std::string_view option, double value) {
    base::check(value >= 0 && value < 1, ErrorKind::bad_input, "optimizer option {} is {}, expected 0 to below 1",
                option, value);
  };
  const auto positive = [](std::string_view option, double value) {
    base::check(value > 0, ErrorKind::bad_input, "optimizer option {} is {}, expected more than 0", option, value);
  };
  fraction("beta1", o.beta1);
  fraction("beta2", o.beta2);
  fraction("muon_momentum", o.muon_momentum);
  positive("epsilon", o.epsilon);
  positive("muon_rate", o.muon_rate);
  positive("prodigy_d0", o.prodigy_d0);
  positive("prodigy_d_factor", o.prodigy_d_factor);
  positive("prodigy_growth_rate", o.prodigy_growth_rate);
  base::check(o.weight_decay >= 0, ErrorKind::bad_input, "optimizer option weight_decay is {}, expected 0 or more",
              o.weight_decay);
}

void check_parameters(const Parameters& parameters) {
  std::set<std::string> names;
  for (const Parameter& p : parameters) {
    base::check(names.insert(p.name).second, ErrorKind::internal, "two trained tensors are named {}", p.name);
    base::check(p.value.defined() && p.value.scalar_type() == at::kFloat && p.value.is_contiguous() &&
                    p.value.is_leaf() && p.value.requires_grad(),
                ErrorKind::internal, "trained tensor {} is not a contiguous f32 leaf that records gradients", p.name);
    base::check(p.value.device() == parameters.front().value.device(), ErrorKind::internal,
                "trained tensor {} is on {}, the first one on {}", p.name, p.value.device().str(),
                parameters.front().value.device().str());
    base::check(!p.matrix || p.value.dim() >= 2, ErrorKind::internal, "trained tensor {} of shape {} is no matrix",
                p.name, files::shape_text(p.value.sizes().vec()));
    const int64_t rows = std::accumulate(p.row_parts.begin(), p.row_parts.end(), int64_t{0});
    base::check(p.row_parts.empty() || (p.value.dim() >= 2 && rows == p.value.size(0)), ErrorKind::internal,
                "trained tensor {} of shape {} has parts of {} rows in all", p.name,
                files::shape_text(p.value.sizes().vec()), rows);
  }
}

}  // namespace

std::string_view name(OptimizerKind kind) {
  return std::ranges::find(kNames, kind, &decltype(kNames)::value_type::first)->second;
}

std::optional<OptimizerKind> optimizer_from_name(std::string_view text) {
  const auto found = std::ranges::find(kNames, text, &decltype(kNames)::value_type::second);
  return found == kNames.end() ? std::nullopt : std::optional(found->first);
}

void Optimizer::load(const OptimizerState& saved) { copy_state(state(), saved, "optimizer state"); }

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const Parameters& parameters) {
  check_options(options);
  check_parameters(parameters);
  switch (options.kind) {
    case OptimizerKind::adamw: return std::make_unique<AdamW>(options, parameters);
    case OptimizerKind::adamw8bit: return std::make_unique<AdamW8bit>(options, parameters);
    case OptimizerKind::prodigy: return std::make_unique<Prodigy>(options, parameters);
    case OptimizerKind::muon: return std::make_unique<Muon>(options, parameters);
  }
  base::fail(ErrorKind::internal, "unknown optimizer");
}

}  // namespace calotype::train
