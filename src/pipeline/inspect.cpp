#include "pipeline/inspect.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <cmath>

#include "base/error.h"
#include "flux/flux_transformer.h"
#include "text/clip_encoder.h"
#include "text/t5_encoder.h"
#include "vae/autoencoder.h"
#include "weights/quant.h"

namespace calotype::pipeline {

using files::StoredTensor;
using weights::Component;
using weights::TensorIndex;

namespace {

const weights::LoadOptions kShapesOnly{.dtype = at::kFloat, .device = at::kMeta};

/// Builds the part without its numbers, so that the very code that loads it finds what is wrong; returns what it is.
std::string build(const TensorIndex& index) {
  switch (index.component) {
    case Component::transformer: {
      const flux::FluxTransformer model(index, kShapesOnly);
      const flux::TransformerConfig& c = model.config();
      return fmt::format("{}: {} double and {} single blocks, width {}, {} heads of {}", flux::variant_of(c).name,
                         c.double_blocks, c.single_blocks, c.width, c.heads(), c.head_width);
    }
    case Component::vae: {
      const vae::AutoencoderConfig c = vae::autoencoder_config(index);
      const bool both = !c.encoder_channels.empty() && !c.decoder_channels.empty();
      const auto parts = c.encoder_channels.empty() ? vae::Autoencoder::Parts::decoder : vae::Autoencoder::Parts::both;
      if (!c.decoder_channels.empty()) const vae::Autoencoder built(index, kShapesOnly, parts);
      return fmt::format("{}, {} latent channels, {} pixels a latent",
                         both                         ? "encoder and decoder"
                         : c.encoder_channels.empty() ? "decoder only"
                                                      : "encoder only",
                         c.latent_channels, c.factor());
    }
    case Component::clip: {
      const text::ClipEncoder built(index, kShapesOnly);
      return fmt::format("CLIP: {} layers, width {}", built.config().layers, built.config().width);
    }
    case Component::t5: {
      const text::T5Encoder built(index, kShapesOnly);
      return fmt::format("T5 encoder: {} layers, width {}", built.config().layers, built.config().width);
    }
  }
  return "";
}

bool is_finite(const StoredTensor& tensor, float scale) {
  constexpr int64_t kChunk = 1 << 16;  // a multiple of every block
  std::atomic<bool> finite = true;
  const int64_t elements = tensor.elements();
  at::parallel_for(0, (elements + kChunk - 1) / kChunk, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> values(kChunk);
    for (int64_t chunk = begin; chunk < end && finite; ++chunk) {
      const int64_t first = chunk * kChunk, count = std::min(kChunk, elements - first);
      const auto offset = *files::bytes_of(tensor.type, static_cast<uint64_t>(first));
      const auto size = *files::bytes_of(tensor.type, static_cast<uint64_t>(count));
      const std::span<float> out(values.data(), static_cast<size_t>(count));
      weights::decode_f32(tensor.type, tensor.bytes.subspan(offset, size), out, scale);
      for (const float value : out)
        if (!std::isfinite(value)) finite = false;
    }
  });
  return finite;
}

PartReport report_part(const TensorIndex& index, const InspectOptions& options) {
  PartReport report{.component = index.component, .parameters = index.parameters(), .bytes = index.bytes()};
  int64_t done = 0;
  for (const auto& [name, source] : index.tensors) {
    for (const weights::Source::Part& part : source.parts) {
      ++report.tensors;
      ++report.types[std::string(files::name(part.tensor.type))];
      if (options.check_values && !is_finite(part.tensor, part.scale)) report.not_finite.push_back(part.tensor.name);
    }
    if (options.check_values && options.progress)
      options.progress({.stage = "check", .done = ++done, .total = static_cast<int64_t>(index.tensors.size())});
  }
  try {
    report.variant = build(index);
  } catch (const base::Error& error) {
    report.problems.emplace_back(error.what());
  }
  return report;
}

}  // namespace

std::vector<FileReport> inspect(const std::filesystem::path& path, const InspectOptions& options) {
  std::vector<FileReport> reports;
  for (const FileGroup& group : open_files(path)) {
    FileReport report{.path = group.path.string(),
                      .container = std::string(files::name(group.files.front().container))};
    if (group.files.size() > 1) report.container += fmt::format(" in {} files", group.files.size());
    for (const files::TensorFile& file : group.files) report.bytes += std::filesystem::file_size(file.path);
    for (const auto& [component, index] : group.checkpoint.parts) report.parts.push_back(report_part(index, options));
    report.unknown_tensors = static_cast<int64_t>(group.checkpoint.unknown.size());
    if (report.unknown_tensors) report.first_unknown = base::printable(group.checkpoint.unknown.front().name);
    reports.push_back(std::move(report));
  }
  return reports;
}

std::vector<std::string> missing_parts(const std::vector<FileReport>& reports) {
  std::vector<std::string> missing;
  for (const Component component : {Component::transformer, Component::vae, Component::clip, Component::t5}) {
    bool found = false;
    for (const FileReport& file : reports)
      for (const PartReport& part : file.parts) found |= part.component == component;
    if (!found) missing.push_back(fmt::format("the {}", weights::name(component)));
  }
  return missing;
}

}  // namespace calotype::pipeline
