#include "kernels/fused_ops_cpu.h"

#include "kernels/fused_rows.h"
#include "kernels/tensor_rows.h"

namespace calotype::kernels::cpu {
Tensor norm_modulate(const Tensor& x_BLD, const Modulation& m) {
  const Tensor out = at::empty(x_BLD.sizes(), x_BLD.options());
  const Tensor scale = as_float(1 + m.scale), shift = as_float(m.shift);
  const int64_t width = x_BLD.size(-1);
  with_type(x_BLD, [&]<typename T>(T*) {
    for_rows(x_BLD, [&](int64_t b, int64_t l, int64_t row) {
      norm_modulate_row(row_of<T>(x_BLD, b, l),
                        {.one_plus_scale = begin_of<float>(scale) + b * width,
                         .shift = begin_of<float>(shift) + b * width,
                         .width = static_cast<size_t>(width)},
                        begin_of<T>(out) + row * width);
    });
  });
  return out;
}

Tensor gate_residual(const Tensor& x_BLD, const Tensor& gate_BD, const Tensor& y_BLD) {
  const Tensor out = at::empty(x_BLD.sizes(), x_BLD.options());
  const Tensor gate = as_float(gate_BD);
  const int64_t width = x_BLD.size(-1);
  with_type(x_BLD, [&]<typename T>(T*) {
    for_rows(x_BLD, [&](int64_t b, int64_t l, int64_t row) {
      gate_residual_row(GateResidualRow<T>{.x = row_of<T>(x_BLD, b, l),
                                           .gate = begin_of<float>(gate) + b * width,
                                           .y = row_of<T>(y_BLD, b, l),
                                           .width = static_cast<size_t>(width)},
                        begin_of<T>(out) + row * width);
    });
  });
  return out;
}

Tensor gelu_tanh(const Tensor& x) {
  const Tensor in = x.contiguous();
  const Tensor out = at::empty(in.sizes(), in.options());
  with_type(in, [&]<typename T>(T*) {
    at::parallel_for(0, in.numel(), kGrainNumbers, [&](int64_t begin, int64_t end) {
      gelu_tanh_row(static_cast<const T*>(in.const_data_ptr()) + begin, begin_of<T>(out) + begin,
                    static_cast<size_t>(end - begin));
    });
  });
  return out;
}

Tensor concat_gelu(const Tensor& attention_BND, const Tensor& mlp_BNM) {
  const int64_t width = attention_BND.size(-1), hidden = mlp_BNM.size(-1);
  const Tensor out = at::empty({mlp_BNM.size(0), mlp_BNM.size(1), width + hidden}, mlp_BNM.options());
  with_type(mlp_BNM, [&]<typename T>(T*) {
    for_rows(mlp_BNM, [&](int64_t b, int64_t n, int64_t row) {
      T* target = begin_of<T>(out) + row * (width + hidden);
      std::copy_n(row_of<T>(attention_BND, b, n), width, target);
      gelu_tanh_row(row_of<T>(mlp_BNM, b, n), target + width, static_cast<size_t>(hidden));
    });
  });
  return out;
}

namespace {

template <typename T>
struct StreamRotation {
  const QkvStream& stream;
  const Heads& heads;
  const Tensor& cosine_NK;
  const Tensor& sine_NK;
  int64_t first_token;

  void operator()() const {
    const Tensor& qkv = stream.qkv_BLE;
    const int64_t n_heads = heads.q_BHNK.size(1), tokens = heads.q_BHNK.size(2), head_width = heads.q_BHNK.size(3);
    const int64_t width = n_heads * head_width;
    const Tensor q_scale = as_float(stream.q_scale_K), k_scale = as_float(stream.k_scale_K);
    for_rows(qkv, [&](int64_t b, int64_t l, int64_t) {
      const T* row = row_of<T>(qkv, b, l);
      const int64_t token = first_token + l;
      const int64_t target = (b * n_heads * tokens + token) * head_width;
      NormRotateToken shape{.scale = begin_of<float>(q_scale),
                            .cosine = begin_of<float>(cosine_NK) + token * head_width,
                            .sine = begin_of<float>(sine_NK) + token * head_width,
                            .heads = static_cast<size_t>(n_heads),
                            .width = static_cast<size_t>(head_width),
                            .out_stride = static_cast<size_t>(tokens * head_width)};
      norm_rotate_token(row, shape, begin_of<T>(heads.q_BHNK) + target);
      shape.scale = begin_of<float>(k_scale);
      norm_rotate_token(row + width, shape, begin_of<T>(heads.k_BHNK) + target);
      for (int64_t h = 0; h < n_heads; ++h)
        std::copy_n(row + 2 * width + h * head_width, head_width,
                    begin_of<T>(heads.v_BHNK) + target + h * tokens * head_width);
    });
  }
};

}  // namespace

WideRotary widen(const RotaryTable& table) {
  const auto pairs = [](const Tensor& first_NC, const Tensor& second_NC) {
    return at::stack({first_NC, second_NC}, -1).flatten(-2).contiguous();
  };
  return {pairs(table.cos_NC, table.cos_NC), pairs(-table.sin_NC, table.sin_NC)};
}

Heads qk_norm_rope(const std::vector<QkvStream>& streams, const RotaryTable& table, int64_t head_width) {
  const Tensor& first = streams.front().qkv_BLE;
  int64_t tokens = 0;
  for (const QkvStream& stream : streams) tokens += stream.qkv_BLE.size(1);
  const std::vector<int64_t> shape = {first.size(0), first.size(-1) / 3 / head_width, tokens, head_width};
  const Heads heads{at::empty(shape, first.options()), at::empty(shape, first.options()),
                    at::empty(shape, first.options())};
  const WideRotary wide = widen(table);
  with_type(first, [&]<typename T>(T*) {
    int64_t token = 0;
    for (const QkvStream& stream : streams) {
      StreamRotation<T>{stream, heads, wide.cosine_NK, wide.sine_NK, token}();
      token += stream.qkv_BLE.size(1);
    }
  });
  return heads;
}

}  // namespace calotype::kernels::cpu
