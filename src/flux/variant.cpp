#include "flux/variant.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace calotype::flux {
namespace {

using base::ErrorKind;

// Defaults: black-forest-labs/flux src/flux/util.py and cli.py, diffusers pipelines/flux.
// clang-format off
constexpr Variant kVariants[] = {
    {.name = "schnell",        .guidance = false, .input_factor = 1, .shifted_schedule = false, .steps = 4,  .guidance_scale = 0,   .text_tokens = 256},
    {.name = "dev",            .guidance = true,  .input_factor = 1, .shifted_schedule = true,  .steps = 28, .guidance_scale = 3.5, .text_tokens = 512},
    {.name = "fill",           .guidance = true,  .input_factor = 6, .shifted_schedule = true,  .steps = 50, .guidance_scale = 30,  .text_tokens = 512},
    {.name = "canny or depth", .guidance = true,  .input_factor = 2, .shifted_schedule = true,  .steps = 50, .guidance_scale = 10,  .text_tokens = 512},
};
// clang-format on

std::vector<int64_t> axes_from(const nlohmann::json& config, int64_t head_width, const std::string& where) {
  const auto found = config.is_object() ? config.find("axes_dims_rope") : config.end();
  if (!config.is_object() || found == config.end()) return default_axes(head_width);
  std::vector<int64_t> axes;
  if (found->is_array() && found->size() == 3)
    for (const auto& axis : *found) axes.push_back(axis.is_number_integer() ? axis.get<int64_t>() : -1);
  const bool even = std::ranges::all_of(axes, [](int64_t axis) { return axis >= 0 && axis % 2 == 0 && axis < 4096; });
  base::check(axes.size() == 3 && even && std::accumulate(axes.begin(), axes.end(), int64_t{0}) == head_width,
              ErrorKind::corrupt_file,
              "{}: axes_dims_rope is {} in its configuration, expected three even numbers with sum {}", where,
              found->dump(), head_width);
  return axes;
}

}  // namespace

std::vector<int64_t> default_axes(int64_t head_width) {
  int64_t first = std::max<int64_t>(2, head_width / 16 * 2);
  if ((head_width - first) % 4) first += 2;  // the other two must be even as well
  const int64_t other = (head_width - first) / 2;
  return {first, other, other};
}

TransformerConfig transformer_config(const weights::TensorIndex& index) {
  const auto extent = [&](std::string_view tensor, size_t dimension) {
    const auto shape = index.shape(tensor);
    base::check(shape.size() > dimension, ErrorKind::corrupt_file,
                "{}: tensor {} has shape {}, expected more dimensions", index.where(), tensor,
                files::shape_text(shape));
    return shape[dimension];
  };
  TransformerConfig config;
  config.width = extent("img_in.weight", 0);
  config.in_channels = extent("img_in.weight", 1);
  config.out_channels = extent("final_layer.linear.weight", 0);
  config.text_width = extent("txt_in.weight", 1);
  config.pooled_width = extent("vector_in.in_layer.weight", 1);
  config.time_width = extent("time_in.in_layer.weight", 1);
  config.double_blocks = index.count("double_blocks.");
  config.single_blocks = index.count("single_blocks.");
  config.guidance = index.has("guidance_in.in_layer.weight");
  base::check(config.double_blocks > 0 || config.single_blocks > 0, ErrorKind::corrupt_file,
              "{}: has no transformer blocks, expected double_blocks and single_blocks", index.where());
  const bool first_double = config.double_blocks > 0;
  config.head_width = extent(
      first_double ? "double_blocks.0.img_attn.norm.query_norm.scale" : "single_blocks.0.norm.query_norm.scale", 0);
  config.mlp_width = first_double ? extent("double_blocks.0.img_mlp.0.weight", 0)
                                  : extent("single_blocks.0.linear2.weight", 1) - config.width;
  base::check(config.head_width >= 2 && config.head_width <= 512 && config.head_width % 2 == 0 && config.width > 0 &&
                  config.width % config.head_width == 0,
              ErrorKind::corrupt_file,
              "{}: width {} and head size {} do not fit (heads are even, at most 512, and divide the width)",
              index.where(), config.width, config.head_width);
  base::check(config.in_channels > 0 && config.out_channels > 0 && config.out_channels % 4 == 0 &&
                  config.mlp_width > 0 && config.time_width % 2 == 0,
              ErrorKind::corrupt_file, "{}: {} input and {} output channels, expected multiples of 4", index.where(),
              config.in_channels, config.out_channels);
  config.axes = axes_from(index.config, config.head_width, index.where());
  return config;
}

const Variant& variant_of(const TransformerConfig& config) {
  const int64_t factor = config.in_channels / config.out_channels;
  for (const Variant& variant : kVariants)
    if (variant.guidance == config.guidance && variant.input_factor == factor) return variant;
  return kVariants[config.guidance ? 1 : 0];
}

}  // namespace calotype::flux
