#include "kernels/fused_ops_backward_cpu.h"

#include "kernels/fused_ops_cpu.h"
#include "kernels/fused_rows_backward.h"
#include "kernels/tensor_rows.h"

namespace calotype::kernels::cpu {
namespace {

/// Rows [begin, end) of sample b that share one sum.
struct Chunk {
  int64_t b, index, begin, end;
};

/// Walks a [B, L, …] tensor in chunks of rows on all threads.
template <typename Body>
void for_chunks(const Tensor& t_BLD, Body body) {
  const int64_t length = t_BLD.size(1), chunks = chunks_of(length);
  at::parallel_for(0, t_BLD.size(0) * chunks, grain(kChunkRows * t_BLD.size(-1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % chunks * kChunkRows;
      body(Chunk{i / chunks, i % chunks, first, std::min(first + kChunkRows, length)});
    }
  });
}

/// Zeroed f32 sums [B, chunks, parameters, D].
Tensor chunk_sums(const Tensor& t_BLD, int64_t parameters) {
  return at::zeros({t_BLD.size(0), chunks_of(t_BLD.size(1)), parameters, t_BLD.size(-1)},
                   t_BLD.options().dtype(at::kFloat));
}

Tensor contiguous_like(const Tensor& t) { return at::empty(t.sizes(), t.options()); }

/// Strided rows are fine, strided numbers within a row are not.
Tensor with_rows(const Tensor& t_BLD) { return t_BLD.stride(-1) == 1 ? t_BLD : t_BLD.contiguous(); }

}  // namespace

NormModulateGradients norm_modulate_backward(const Tensor& grad, const Tensor& x_BLD, const Tensor& scale_BD,
                                             Wanted wanted) {
  const Tensor grad_BLD = with_rows(grad), one_plus_scale = as_float(1 + scale_BD);
  const Tensor d_x = wanted.activations ? contiguous_like(x_BLD) : Tensor();
  const Tensor sums = wanted.parameters ? chunk_sums(x_BLD, 2) : Tensor();
  const int64_t width = x_BLD.size(-1), length = x_BLD.size(1);
  with_type(x_BLD, [&]<typename T>(T*) {
    for_chunks(x_BLD, [&](const Chunk& chunk) {
      for (int64_t l = chunk.begin; l < chunk.end; ++l) {
        const T* x = row_of<T>(x_BLD, chunk.b, l);
        const auto count = static_cast<size_t>(width);
        const NormGradientRow<T> row{x, row_of<T>(grad_BLD, chunk.b, l), norm_moments_row(x, count), count};
        if (wanted.activations)
          norm_input_gradient_row(row, begin_of<float>(one_plus_scale) + chunk.b * width,
                                  begin_of<T>(d_x) + (chunk.b * length + l) * width);
        if (!wanted.parameters) continue;
        float* sum = begin_of<float>(sums) + (chunk.b * chunks_of(length) + chunk.index) * 2 * width;
        norm_parameter_gradient_row(row, sum, sum + width);
      }
    });
  });
  if (!wanted.parameters) return {.x_BLD = d_x};
  const Tensor total = sum_chunks(sums);
  return {d_x, total.select(1, 0), total.select(1, 1).to(scale_BD.scalar_type())};
}

GateResidualGradients gate_residual_backward(const Tensor& grad, const Tensor& gate_BD, const Tensor& y_BLD,
                                             Wanted wanted) {
  const Tensor grad_BLD = with_rows(grad), gate = as_float(gate_BD);
  const Tensor d_y = wanted.activations ? contiguous_like(y_BLD) : Tensor();
  const Tensor sums = wanted.parameters ? chunk_sums(y_BLD, 1) : Tensor();
  const int64_t width = y_BLD.size(-1), length = y_BLD.size(1);
  with_type(y_BLD, [&]<typename T>(T*) {
    for_chunks(y_BLD, [&](const Chunk& chunk) {
      const auto count = static_cast<size_t>(width);
      for (int64_t l = chunk.begin; l < chunk.end; ++l) {
        const T* g = row_of<T>(grad_BLD, chunk.b, l);
        if (wanted.activations)
          multiply_row(g, begin_of<float>(gate) + chunk.b * width, count,
                       begin_of<T>(d_y) + (chunk.b * length + l) * width);
        if (wanted.parameters)
          add_product_row(g, row_of<T>(y_BLD, chunk.b, l), count,
                          begin_of<float>(sums) + (chunk.b * chunks_of(length) + chunk.index) * width);
      }
    });
  });
  if (!wanted.parameters) return {.y_BLD = d_y};
  return {sum_chunks(sums).select(1, 0).to(gate_BD.scalar_type()), d_y};
}

Tensor gelu_tanh_backward(const Tensor& grad, const Tensor& x) {
  const Tensor in = x.contiguous(), g = grad.contiguous();
  const Tensor out = contiguous_like(in);
  with_type(in, [&]<typename T>(T*) {
    at::parallel_for(0, in.numel(), kGrainNumbers, [&](int64_t begin, int64_t end) {
      gelu_tanh_gradient_row(static_cast<const T*>(in.const_data_ptr()) + begin,
                             static_cast<const T*>(g.const_data_ptr()) + begin, static_cast<size_t>(end - begin),
                             begin_of<T>(out) + begin);
    });
  });
  return out;
}

Tensor gelu_rows_backward(const Tensor& grad, const Tensor& mlp_BNM) {
  const Tensor grad_BNM = with_rows(grad), out = contiguous_like(mlp_BNM);
  const int64_t hidden = mlp_BNM.size(-1);
  with_type(mlp_BNM, [&]<typename T>(T*) {
    for_rows(mlp_BNM, [&](int64_t b, int64_t n, int64_t row) {
      gelu_tanh_gradient_row(row_of<T>(mlp_BNM, b, n), row_of<T>(grad_BNM, b, n), static_cast<size_t>(hidden),
                             begin_of<T>(out) + row * hidden);
    });
  });
  return out;
}

namespace {

template <typename T>
struct StreamRotationGradient {
  const Heads& grad;  // contiguous
  const QkvStream& stream;
  const WideRotary& rotary;
  int64_t first_token;

  QkvStream operator()() const {
    const Tensor& qkv = stream.qkv_BLE;
    const int64_t n_heads = grad.q_BHNK.size(1), tokens = grad.q_BHNK.size(2), head_width = grad.q_BHNK.size(3);
    const int64_t width = n_heads * head_width, length = qkv.size(1), chunks = chunks_of(length);
    const Tensor q_scale = as_float(stream.q_scale_K), k_scale = as_float(stream.k_scale_K);
    const Tensor d_qkv = contiguous_like(qkv);
    const Tensor sums = at::zeros({1, qkv.size(0) * chunks, 2, head_width}, q_scale.options());
    for_chunks(qkv, [&](const Chunk& chunk) {
      float* sum = begin_of<float>(sums) + (chunk.b * chunks + chunk.index) * 2 * head_width;
      for (int64_t l = chunk.begin; l < chunk.end; ++l) {
        const T* row = row_of<T>(qkv, chunk.b, l);
        T* out = begin_of<T>(d_qkv) + (chunk.b * length + l) * 3 * width;
        const int64_t token = first_token + l, source = (chunk.b * n_heads * tokens + token) * head_width;
        NormRotateGradientToken shape{.scale = begin_of<float>(q_scale),
                                      .cosine = begin_of<float>(rotary.cosine_NK) + token * head_width,
                                      .sine = begin_of<float>(rotary.sine_NK) + token * head_width,
                                      .heads = static_cast<size_t>(n_heads),
                                      .width = static_cast<size_t>(head_width),
                                      .grad_stride = static_cast<size_t>(tokens * head_width),
                                      .d_scale = sum};
        norm_rotate_gradient_token(row, begin_of<T>(grad.q_BHNK) + source, shape, out);
        shape.scale = begin_of<float>(k_scale);
        shape.d_scale = sum + head_width;
        norm_rotate_gradient_token(row + width, begin_of<T>(grad.k_BHNK) + source, shape, out + width);
        for (int64_t h = 0; h < n_heads; ++h)
          std::copy_n(begin_of<T>(grad.v_BHNK) + source + h * tokens * head_width, head_width,
                      out + 2 * width + h * head_width);
      }
    });
    const Tensor total = sum_chunks(sums).select(0, 0);
    return {d_qkv, total.select(0, 0).to(stream.q_scale_K.scalar_type()),
            total.select(0, 1).to(stream.k_scale_K.scalar_type())};
  }
};

}  // namespace

std::vector<QkvStream> qk_norm_rope_backward(const Heads& grad, const std::vector<QkvStream>& streams,
                                             const RotaryTable& table) {
  const Heads g{grad.q_BHNK.contiguous(), grad.k_BHNK.contiguous(), grad.v_BHNK.contiguous()};
  const WideRotary rotary = widen(table);
  std::vector<QkvStream> out;
  with_type(g.q_BHNK, [&]<typename T>(T*) {
    int64_t token = 0;
    for (const QkvStream& stream : streams) {
      out.push_back(StreamRotationGradient<T>{g, stream, rotary, token}());
      token += stream.qkv_BLE.size(1);
    }
  });
  return out;
}

}  // namespace calotype::kernels::cpu
