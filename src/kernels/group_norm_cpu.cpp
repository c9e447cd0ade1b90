#include "kernels/group_norm_cpu.h"

#include <cmath>
#include <numeric>

#include "kernels/group_norm_rows.h"
#include "kernels/tensor_rows.h"

namespace calotype::kernels::cpu {
namespace {

constexpr int64_t kRunNumbers = 32768;

at::MemoryFormat format_of(const Tensor& x_BCHW) {
  return !x_BCHW.is_contiguous() && x_BCHW.is_contiguous(at::MemoryFormat::ChannelsLast)
             ? at::MemoryFormat::ChannelsLast
             : at::MemoryFormat::Contiguous;
}

/// Numbers that follow each other in memory, worked on by one thread.
struct Run {
  int64_t b;
  int64_t channel;  ///< the first; a run of channels_last has all
  int64_t index;    ///< among those of the same sample and channel
  int64_t offset, count;
};

/// How a [B, C, H, W] tensor falls into runs: parts of a channel, or parts of a sample where channels lie side by side.
struct Layout {
  int64_t batch, channels, pixels, period, run_numbers, runs;
  bool channels_last;

  explicit Layout(const Tensor& x_BCHW)
      : batch(x_BCHW.size(0)),
        channels(x_BCHW.size(1)),
        pixels(x_BCHW.size(2) * x_BCHW.size(3)),
        channels_last(format_of(x_BCHW) == at::MemoryFormat::ChannelsLast) {
    const auto unit = static_cast<int64_t>(kPeriodUnit);
    period = channels_last ? std::lcm(channels, unit) : unit;
    run_numbers = std::max<int64_t>(1, kRunNumbers / period) * period;
    runs = (numbers() + run_numbers - 1) / run_numbers;
  }

  int64_t numbers() const { return channels_last ? channels * pixels : pixels; }  // of all runs of one row
  int64_t run_channels() const { return channels_last ? channels : 1; }
  double run_pixels(int64_t index) const {
    return static_cast<double>(std::min(run_numbers, numbers() - index * run_numbers) / run_channels());
  }

  template <typename Body>
  void for_runs(Body body) const {
    const int64_t rows = channels_last ? batch : batch * channels;
    at::parallel_for(0, rows * runs, grain(std::min(run_numbers, numbers())), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / runs, first = i % runs * run_numbers;
        body(Run{channels_last ? row : row / channels, channels_last ? 0 : row % channels, i % runs,
                 row * numbers() + first, std::min(run_numbers, numbers() - first)});
      }
    });
  }
};

using Floats = std::vector<float>;

/// A run's coefficients [C] → one per place in the period.
Floats periodic(const Layout& layout, const Tensor& values_BC, const Run& run) {
  const float* from = values_BC.const_data_ptr<float>() + run.b * layout.channels + run.channel;
  Floats out(static_cast<size_t>(layout.period));
  for (size_t i = 0; i < out.size(); ++i) out[i] = from[i % static_cast<size_t>(layout.run_channels())];
  return out;
}

Tensor by_run(const Layout& layout) { return at::empty({layout.batch, layout.runs, layout.channels}, at::kFloat); }

/// Sums of a run's places → sums of its channels, written to [b, run, channel].
float* fold(const Layout& layout, const Floats& sums, const Run& run, const Tensor& to) {
  float* out = to.mutable_data_ptr<float>() + (run.b * layout.runs + run.index) * layout.channels + run.channel;
  std::fill_n(out, layout.run_channels(), 0.0F);
  for (size_t i = 0; i < sums.size(); ++i) out[i % static_cast<size_t>(layout.run_channels())] += sums[i];
  return out;
}

template <typename T>
const T* numbers_at(const Tensor& t, const Run& run) {
  return static_cast<const T*>(t.const_data_ptr()) + run.offset;
}

/// [B, G] → [B, C].
Tensor to_channels(const Tensor& values_BG, int64_t channels) {
  return values_BG.repeat_interleave(channels / values_BG.size(1), 1);
}

struct NormCoefficients {
  Tensor mean_BC, factor_BC, bias_BC;
  NormCoefficients(const GroupStatistics& s, const Tensor& weight_C, const Tensor& bias_C)
      : mean_BC(to_channels(s.mean_BG, weight_C.size(0)).contiguous()),
        factor_BC((to_channels(s.rstd_BG, weight_C.size(0)) * as_float(weight_C)).contiguous()),
        bias_BC(as_float(bias_C).expand_as(mean_BC).contiguous()) {}
};

struct GroupSettings {
  int64_t groups;
  double eps;
};

/// Means and squares around them, per run and channel, → per group. The squares around a common mean are those around
/// each part's mean plus the parts' distances (Chan et al. 1983).
GroupStatistics join(const Layout& layout, const Tensor& means, const Tensor& squares, GroupSettings settings) {
  const int64_t group_channels = layout.channels / settings.groups;
  const GroupStatistics out{at::empty({layout.batch, settings.groups}, at::kFloat),
                            at::empty({layout.batch, settings.groups}, at::kFloat)};
  const auto total = static_cast<double>(layout.pixels * group_channels);
  at::parallel_for(
      0, layout.batch * settings.groups, grain(layout.runs * group_channels), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t first =
              i / settings.groups * layout.runs * layout.channels + i % settings.groups * group_channels;
          const auto over_parts = [&](auto part) {
            double sum = 0;
            for (int64_t run = 0; run < layout.runs; ++run)
              for (int64_t c = 0; c < group_channels; ++c)
                sum += part(first + run * layout.channels + c, layout.run_pixels(run));
            return sum / total;
          };
          const float* mean = means.const_data_ptr<float>();
          const float* square = squares.const_data_ptr<float>();
          const double common = over_parts([&](int64_t at, double pixels) { return mean[at] * pixels; });
          const double variance = over_parts([&](int64_t at, double pixels) {
            return square[at] + (mean[at] - common) * (mean[at] - common) * pixels;
          });
          out.mean_BG.mutable_data_ptr<float>()[i] = static_cast<float>(common);
          out.rstd_BG.mutable_data_ptr<float>()[i] = static_cast<float>(1 / std::sqrt(variance + settings.eps));
        }
      });
  return out;
}

/// The coefficients of a run at hand.
struct RunNorm {
  Floats mean, factor, bias;
  RunNorm(const Layout& layout, const NormCoefficients& c, const Run& run)
      : mean(periodic(layout, c.mean_BC, run)),
        factor(periodic(layout, c.factor_BC, run)),
        bias(periodic(layout, c.bias_BC, run)) {}
  PeriodicNorm view() const { return {mean.data(), factor.data(), bias.data(), mean.size()}; }
};

}  // namespace

GroupStatistics group_statistics(const Tensor& x, int64_t groups, double eps) {
  const Tensor x_BCHW = x.contiguous(format_of(x));
  const Layout layout(x_BCHW);
  const Tensor means = by_run(layout), squares = by_run(layout);
  with_type(x_BCHW, [&]<typename T>(T*) {
    layout.for_runs([&](const Run& run) {
      const auto count = static_cast<size_t>(run.count), period = static_cast<size_t>(layout.period);
      const auto channels = static_cast<size_t>(layout.run_channels());
      Floats sums(period), centre(period);
      add_periodic(numbers_at<T>(x_BCHW, run), count, period, sums.data());
      float* mean = fold(layout, sums, run, means);
      for (size_t c = 0; c < channels; ++c) mean[c] /= static_cast<float>(count / channels);
      for (size_t i = 0; i < period; ++i) centre[i] = mean[i % channels];
      std::ranges::fill(sums, 0.0F);
      add_periodic_squares(numbers_at<T>(x_BCHW, run), count, {centre.data(), nullptr, nullptr, period}, sums.data());
      fold(layout, sums, run, squares);
    });
  });
  return join(layout, means, squares, {.groups = groups, .eps = eps});
}

Tensor group_norm_silu(const Tensor& x, const Tensor& weight_C, const Tensor& bias_C, const GroupStatistics& s) {
  const Tensor x_BCHW = x.contiguous(format_of(x)), out = at::empty_like(x_BCHW);
  const Layout layout(x_BCHW);
  const NormCoefficients coefficients(s, weight_C, bias_C);
  with_type(x_BCHW, [&]<typename T>(T*) {
    layout.for_runs([&](const Run& run) {
      const RunNorm norm(layout, coefficients, run);
      norm_silu_run(numbers_at<T>(x_BCHW, run), static_cast<size_t>(run.count), norm.view(),
                    begin_of<T>(out) + run.offset);
    });
  });
  return out;
}

// With n = (x − mean)·rstd and g = d_h · weight: dx = rstd · (g − mean(g) − n · mean(g · n)), means over the group.
// Both follow from the sums per channel that the parameters need anyway.
GroupNormGradients group_norm_silu_backward(const Tensor& grad, const Tensor& x, const Tensor& weight_C,
                                            const Tensor& bias_C, const GroupStatistics& s) {
  const Tensor x_BCHW = x.contiguous(format_of(x)), grad_BCHW = grad.contiguous(format_of(x)),
               out = at::empty_like(x_BCHW);
  const Layout layout(x_BCHW);
  const NormCoefficients coefficients(s, weight_C, bias_C);
  const Tensor run_bias = by_run(layout), run_centred = by_run(layout);
  with_type(x_BCHW, [&]<typename T>(T*) {
    layout.for_runs([&](const Run& run) {
      const RunNorm norm(layout, coefficients, run);
      Floats d_bias(norm.mean.size()), d_centred(norm.mean.size());
      norm_silu_gradient_sums(numbers_at<T>(x_BCHW, run), numbers_at<T>(grad_BCHW, run), static_cast<size_t>(run.count),
                              norm.view(), {d_bias.data(), d_centred.data()}, begin_of<T>(out) + run.offset);
      fold(layout, d_bias, run, run_bias);
      fold(layout, d_centred, run, run_centred);
    });
  });
  const Tensor d_h_BC = sum_chunks(run_bias).to(at::kDouble);
  const Tensor d_hn_BC =
      sum_chunks(run_centred).to(at::kDouble) * to_channels(s.rstd_BG, layout.channels).to(at::kDouble);
  const int64_t groups = s.mean_BG.size(1);
  const auto group_mean = [&](const Tensor& t_BC) {
    const Tensor weighted = (t_BC * weight_C.to(at::kDouble)).view({layout.batch, groups, -1});
    return weighted.sum(2) / static_cast<double>(layout.pixels * weighted.size(2));
  };
  const Tensor rstd_BG = s.rstd_BG.to(at::kDouble);
  const auto coefficient = [&](const Tensor& t_BG) {
    return to_channels(t_BG, layout.channels).to(at::kFloat).contiguous();
  };
  const Tensor slope_BC = coefficient(-rstd_BG * rstd_BG * group_mean(d_hn_BC)),
               offset_BC = coefficient(-rstd_BG * group_mean(d_h_BC));
  with_type(x_BCHW, [&]<typename T>(T*) {
    layout.for_runs([&](const Run& run) {
      const RunNorm norm(layout, coefficients, run);
      const Floats slope = periodic(layout, slope_BC, run), offset = periodic(layout, offset_BC, run);
      norm_input_gradient_run(numbers_at<T>(x_BCHW, run), static_cast<size_t>(run.count), norm.view(),
                              {slope.data(), offset.data()}, begin_of<T>(out) + run.offset);
    });
  });
  return {out, d_hn_BC.sum(0).to(at::kFloat), d_h_BC.sum(0).to(at::kFloat)};
}

}  // namespace calotype::kernels::cpu
