#include "vae/autoencoder.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "base/probe.h"
#include "kernels/fused_ops.h"
#include "vae/tile_statistics.h"

namespace calotype::vae {

using base::ErrorKind;
using weights::Scope;

namespace {

constexpr double kEpsilon = 1e-6;

struct Conv {
  Tensor weight, bias;
  std::vector<int64_t> shape;
  int64_t padding;
  /// kernel k×k, stride 1, same size out. A 1×1 kernel may be stored as a plain matrix (diffusers' attention).
  Conv(const Scope& s, int64_t in, int64_t out, int64_t kernel)
      : shape({out, in, kernel, kernel}), padding(kernel / 2) {
    const bool matrix = s.has("weight") && s.rank("weight") == 2;
    weight = s.tensor("weight", matrix ? std::vector<int64_t>{out, in} : shape);
    bias = s.tensor("bias", {out});
    if (weight.is_meta() || s.options().trained) return;  // a trained weight must stay the leaf that it is
    weight = weight.view(shape).contiguous(at::MemoryFormat::ChannelsLast);
  }
  Tensor operator()(const Tensor& x, int64_t stride = 1) const {
    const at::ScalarType dtype = x.scalar_type();
    return at::conv2d(x, weight.view(shape).to(dtype), bias.to(dtype), stride, stride == 1 ? padding : 0);
  }
};

struct Norm : GroupNorm {
  Norm(const Scope& s, int64_t channels, int64_t group_count)
      : GroupNorm{s.tensor("weight", {channels}), s.tensor("bias", {channels}), group_count} {}
  Tensor operator()(const Tensor& x, TileStatistics* tiles = nullptr) const {
    if (tiles) return tiles->normalise(x, *this);
    const at::ScalarType dtype = x.scalar_type();
    return at::group_norm(x, groups, weight_C.to(dtype), bias_C.to(dtype), kEpsilon);
  }
  /// silu(norm(x)); tiles normalise by themselves and go on in place, as nothing else holds the normalised values.
  Tensor activated(const Tensor& x, TileStatistics* tiles = nullptr) const {
    if (!tiles) return kernels::group_norm_silu(x, weight_C, bias_C, groups, kEpsilon);
    Tensor normed = (*this)(x, tiles);
    return at::silu_(normed);
  }
};

struct ResBlock {
  Norm norm1;
  Conv conv1;
  Norm norm2;
  Conv conv2;
  std::optional<Conv> nin_shortcut;
  ResBlock(const Scope& s, int64_t in, int64_t out, int64_t groups)
      : norm1(s / "norm1", in, groups),
        conv1(s / "conv1", in, out, 3),
        norm2(s / "norm2", out, groups),
        conv2(s / "conv2", out, out, 3) {
    if (in != out) nin_shortcut.emplace(s / "nin_shortcut", in, out, 1);
  }
  Tensor operator()(const Tensor& x, TileStatistics* tiles = nullptr) const {
    Tensor h = conv2(norm2.activated(conv1(norm1.activated(x, tiles)), tiles));
    return h.add_(nin_shortcut ? (*nin_shortcut)(x) : x);
  }
};

/// One head over all positions.
struct AttnBlock {
  Norm norm;
  Conv q, k, v, proj_out;
  AttnBlock(const Scope& s, int64_t channels, int64_t groups)
      : norm(s / "norm", channels, groups),
        q(s / "q", channels, channels, 1),
        k(s / "k", channels, channels, 1),
        v(s / "v", channels, channels, 1),
        proj_out(s / "proj_out", channels, channels, 1) {}
  Tensor operator()(const Tensor& x) const {
    const int64_t height = x.size(2), width = x.size(3);
    const Tensor h = norm(x);
    const auto as_head = [](const Tensor& t) {
      return t.flatten(2).transpose(1, 2).unsqueeze(1).contiguous();
    };  // B 1 N C
    const Tensor attended_BNC = kernels::attention({as_head(q(h)), as_head(k(h)), as_head(v(h))});
    const Tensor back = attended_BNC.transpose(1, 2).unflatten(2, {height, width});
    return x + proj_out(back.contiguous(at::MemoryFormat::ChannelsLast));
  }
};

struct Mid {
  ResBlock block_1;
  AttnBlock attn_1;
  ResBlock block_2;
  Mid(const Scope& s, int64_t channels, int64_t groups)
      : block_1(s / "block_1", channels, channels, groups),
        attn_1(s / "attn_1", channels, groups),
        block_2(s / "block_2", channels, channels, groups) {}
  Tensor operator()(const Tensor& x) const { return block_2(attn_1(block_1(x))); }
};

struct Level {
  std::vector<ResBlock> block;
  std::optional<Conv> resample;
};

int64_t rows(const weights::TensorIndex& index, const std::string& tensor) { return index.shape(tensor).at(0); }

std::vector<int64_t> level_channels(const weights::TensorIndex& index, const std::string& prefix) {
  std::vector<int64_t> channels;
  for (int level = 0; level < index.count(prefix); ++level)
    channels.push_back(rows(index, fmt::format("{}{}.block.0.conv1.weight", prefix, level)));
  return channels;
}

double number_or(const nlohmann::json& config, const char* key, double fallback) {
  if (!config.is_object() || !config.contains(key)) return fallback;
  return config[key].is_number() ? config[key].get<double>() : fallback;
}

Tensor channels_last(const Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }

}  // namespace

int64_t AutoencoderConfig::factor() const {
  const auto levels = std::max(encoder_channels.size(), decoder_channels.size());
  return int64_t{1} << (levels - 1);
}

AutoencoderConfig autoencoder_config(const weights::TensorIndex& index) {
  AutoencoderConfig config;
  config.encoder_channels = level_channels(index, "encoder.down.");
  config.decoder_channels = level_channels(index, "decoder.up.");
  base::check(!config.decoder_channels.empty() || !config.encoder_channels.empty(), ErrorKind::corrupt_file,
              "{}: the VAE has neither encoder nor decoder levels", index.where());
  base::check(config.encoder_channels.size() <= 8 && config.decoder_channels.size() <= 8, ErrorKind::corrupt_file,
              "{}: the VAE has more than 8 levels", index.where());
  if (!config.decoder_channels.empty()) {
    config.latent_channels = index.shape("decoder.conv_in.weight").at(1);
    config.decoder_blocks = index.count("decoder.up.0.block.");
  } else {
    config.latent_channels = rows(index, "encoder.conv_out.weight") / 2;
  }
  if (!config.encoder_channels.empty()) config.encoder_blocks = index.count("encoder.down.0.block.");
  config.groups = static_cast<int64_t>(number_or(index.config, "norm_num_groups", 32));
  config.scaling = number_or(index.config, "scaling_factor", config.scaling);
  config.sample_size = static_cast<int64_t>(number_or(index.config, "sample_size", 1024));
  config.shift = number_or(index.config, "shift_factor", config.shift);
  for (const auto& channels : {config.encoder_channels, config.decoder_channels})
    for (const int64_t c : channels)
      base::check(config.groups > 0 && c > 0 && c % config.groups == 0, ErrorKind::corrupt_file,
                  "{}: {} channels cannot be normalised in {} groups (norm_num_groups of its config.json)",
                  index.where(), c, config.groups);
  base::check(config.scaling != 0 && config.latent_channels > 0, ErrorKind::corrupt_file,
              "{}: scaling_factor is 0 or the latents have no channels", index.where());
  base::check(config.sample_size >= 1 && config.sample_size <= 8192, ErrorKind::corrupt_file,
              "{}: sample_size is {}, expected 1 to 8192 pixels", index.where(), config.sample_size);
  return config;
}

struct Autoencoder::Encoder {
  Conv conv_in;
  std::vector<Level> down;
  Mid mid;
  Norm norm_out;
  Conv conv_out;
  std::optional<Conv> quant_conv;

  Encoder(const Scope& root, const AutoencoderConfig& c)
      : conv_in(root / "encoder.conv_in", 3, c.encoder_channels.front(), 3),
        mid(root / "encoder.mid", c.encoder_channels.back(), c.groups),
        norm_out(root / "encoder.norm_out", c.encoder_channels.back(), c.groups),
        conv_out(root / "encoder.conv_out", c.encoder_channels.back(), 2 * c.latent_channels, 3) {
    int64_t in = c.encoder_channels.front();
    for (size_t i = 0; i < c.encoder_channels.size(); ++i) {
      const Scope s = root / "encoder.down" / static_cast<int>(i);
      const int64_t out = c.encoder_channels[i];
      Level level;
      for (int j = 0; j < c.encoder_blocks; ++j, in = out) level.block.emplace_back(s / "block" / j, in, out, c.groups);
      if (i + 1 < c.encoder_channels.size()) level.resample.emplace(s / "downsample.conv", out, out, 3);
      down.push_back(std::move(level));
    }
    if (root.has("quant_conv.weight"))
      quant_conv.emplace(root / "quant_conv", 2 * c.latent_channels, 2 * c.latent_channels, 1);
  }

  Tensor operator()(const Tensor& picture) const {
    Tensor h = conv_in(picture);
    for (const Level& level : down) {
      for (const ResBlock& block : level.block) h = block(h);
      // Zeros to the right and below only, then stride 2.
      if (level.resample) h = (*level.resample)(at::constant_pad_nd(h, {0, 1, 0, 1}), 2);
    }
    h = conv_out(norm_out.activated(mid(h)));
    return quant_conv ? (*quant_conv)(h) : h;
  }
};

struct Autoencoder::Decoder {
  std::optional<Conv> post_quant_conv;
  Conv conv_in;
  Mid mid;
  std::vector<Level> up;  ///< full resolution first, as stored; run from the last to the first
  Norm norm_out;
  Conv conv_out;

  Decoder(const Scope& root, const AutoencoderConfig& c)
      : conv_in(root / "decoder.conv_in", c.latent_channels, c.decoder_channels.back(), 3),
        mid(root / "decoder.mid", c.decoder_channels.back(), c.groups),
        norm_out(root / "decoder.norm_out", c.decoder_channels.front(), c.groups),
        conv_out(root / "decoder.conv_out", c.decoder_channels.front(), 3, 3) {
    if (root.has("post_quant_conv.weight"))
      post_quant_conv.emplace(root / "post_quant_conv", c.latent_channels, c.latent_channels, 1);
    for (size_t i = 0; i < c.decoder_channels.size(); ++i) {
      const Scope s = root / "decoder.up" / static_cast<int>(i);
      const int64_t out = c.decoder_channels[i];
      int64_t in = i + 1 < c.decoder_channels.size() ? c.decoder_channels[i + 1] : out;
      Level level;
      for (int j = 0; j < c.decoder_blocks; ++j, in = out) level.block.emplace_back(s / "block" / j, in, out, c.groups);
      if (i > 0) level.resample.emplace(s / "upsample.conv", out, out, 3);
      up.push_back(std::move(level));
    }
  }

  /// The part at the latents' own size, with attention over all of them.
  Tensor begin(const Tensor& latents) const {
    return mid(conv_in(post_quant_conv ? (*post_quant_conv)(latents) : latents));
  }

  /// The part that grows to the picture's size; only neighbours matter here, and the statistics of the norms.
  Tensor grow(Tensor h, TileStatistics* tiles = nullptr) const {
    for (auto level = up.rbegin(); level != up.rend(); ++level) {
      for (const ResBlock& block : level->block) h = block(h, tiles);
      if (level->resample) h = (*level->resample)(at::upsample_nearest2d(h, {2 * h.size(2), 2 * h.size(3)}));
    }
    return conv_out(norm_out.activated(h, tiles));
  }
};

Autoencoder::Autoencoder(const weights::TensorIndex& index, weights::LoadOptions options, Parts parts)
    : Autoencoder(autoencoder_config(index), Scope(index, options), parts) {
  base::check(decoder_ || parts == Parts::both, ErrorKind::not_found,
              "{}: this VAE has an encoder only; decoding needs one with a decoder", index.where());
  base::check(encoder_ || parts == Parts::decoder, ErrorKind::not_found,
              "{}: this VAE has a decoder only; reading pictures needs one with an encoder", index.where());
}

Autoencoder::Autoencoder(const AutoencoderConfig& config, const Scope& root, Parts parts)
    : config_(config),
      dtype_(root.options().dtype),
      device_(root.options().device),
      training_(root.options().training) {
  if (!config_.decoder_channels.empty()) decoder_ = std::make_unique<Decoder>(root, config_);
  if (parts == Parts::both && !config_.encoder_channels.empty()) encoder_ = std::make_unique<Encoder>(root, config_);
  root.finish();
}

Autoencoder::~Autoencoder() = default;
Autoencoder::Autoencoder(Autoencoder&&) noexcept = default;

Tensor Autoencoder::decode(const Tensor& latents_BChw) const {
  const Tensor unscaled = latents_BChw / config_.scaling + config_.shift;
  if (training_) return decoder_->grow(decoder_->begin(channels_last(unscaled)));
  std::vector<Tensor> pictures;  // one by one: half the memory, and no picture depends on its neighbours
  for (int64_t i = 0; i < unscaled.size(0); ++i)
    pictures.push_back(decoder_->grow(decoder_->begin(channels_last(unscaled.narrow(0, i, 1)))));
  return at::cat(pictures).contiguous();
}

namespace {

/// The stretch of one axis that a tile computes, and the middle of it that is kept, in latents.
struct Stretch {
  int64_t begin, end, keep_begin, keep_end;
};

std::vector<Stretch> stretches(int64_t extent, Tiling tiling) {
  const int64_t core = tiling.tile - 2 * tiling.halo;
  std::vector<Stretch> out;
  for (int64_t at = 0; at < extent; at += core) {
    const int64_t end = std::min(extent, at + core);
    out.push_back({std::max<int64_t>(0, at - tiling.halo), std::min(extent, end + tiling.halo), at, end});
  }
  return out;
}

}  // namespace

Tensor Autoencoder::decode_tiled(const Tensor& latents_BChw, Tiling tiling, const base::CancelToken* cancel) const {
  const int64_t height = latents_BChw.size(2), width = latents_BChw.size(3), f = config_.factor();
  const Tensor out = at::empty({latents_BChw.size(0), 3, height * f, width * f}, latents_BChw.options());
  const Tensor unscaled = latents_BChw / config_.scaling + config_.shift;
  for (int64_t picture = 0; picture < unscaled.size(0); ++picture) {
    const Tensor h = decoder_->begin(channels_last(unscaled.narrow(0, picture, 1)));
    TileStatistics statistics;
    do {
      statistics.begin_pass();
      for (const Stretch& y : stretches(height, tiling)) {
        for (const Stretch& x : stretches(width, tiling)) {
          if (cancel) cancel->throw_if_requested();
          statistics.begin_tile({.top = y.keep_begin - y.begin,
                                 .height = y.keep_end - y.keep_begin,
                                 .left = x.keep_begin - x.begin,
                                 .width = x.keep_end - x.keep_begin,
                                 .tile_height = y.end - y.begin});
          const Tensor part = h.narrow(2, y.begin, y.end - y.begin).narrow(3, x.begin, x.end - x.begin);
          const Tensor tile = decoder_->grow(channels_last(part), &statistics);
          const auto kept = [&](const Tensor& t, const Stretch& s, int64_t dimension) {
            return t.narrow(dimension, (s.keep_begin - s.begin) * f, (s.keep_end - s.keep_begin) * f);
          };
          out.narrow(0, picture, 1)
              .narrow(2, y.keep_begin * f, (y.keep_end - y.keep_begin) * f)
              .narrow(3, x.keep_begin * f, (x.keep_end - x.keep_begin) * f)
              .copy_(kept(kept(tile, y, 2), x, 3));
        }
      }
    } while (!statistics.settled());
  }
  return out;
}

Posterior Autoencoder::encode(const Tensor& picture_B3HW) const {
  base::check(encoder_ != nullptr, ErrorKind::internal, "this autoencoder was loaded without its encoder");
  const std::vector<Tensor> moments = (*encoder_)(channels_last(picture_B3HW)).contiguous().chunk(2, 1);
  return {moments[0], moments[1].clamp(-30, 20)};
}

Tensor Autoencoder::scaled(const Tensor& latents_BChw) const {
  return (latents_BChw - config_.shift) * config_.scaling;
}

uint64_t Autoencoder::decode_bytes(int64_t pixels) const {
  // At full resolution the first block holds its input (channels of the level below), the normalised copy and two
  // results.
  const auto& channels = config_.decoder_channels;
  const int64_t widest = channels.size() > 1 ? channels[1] : channels[0];
  return static_cast<uint64_t>(pixels * (2 * widest + 2 * channels[0])) * c10::elementSize(dtype_);
}

}  // namespace calotype::vae
