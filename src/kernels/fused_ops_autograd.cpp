#include "kernels/fused_ops_autograd.h"

#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/attention_backward_cpu.h"
#include "kernels/fused_ops_backward_cpu.h"
#include "kernels/fused_ops_cpu.h"
#include "kernels/group_norm_cpu.h"

// Each node's arguments are numbered in the order of its forward(); needs_input_grad() counts the tensors among them.
namespace calotype::kernels::autograd {
namespace {

using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// What forward() saved, unless somebody wants gradients of gradients, which would silently be wrong.
variable_list saved(const AutogradContext* node) {
  base::check(!at::GradMode::is_enabled(), base::ErrorKind::unsupported,
              "the fused kernels have no second derivatives: call backward() without create_graph");
  return node->get_saved_variables();
}

Tensor as_type_of(const Tensor& grad, const Tensor& parameter) {
  return grad.defined() ? grad.to(parameter.scalar_type()) : grad;
}

struct NormModulateNode : Function<NormModulateNode> {
  static Tensor forward(AutogradContext* node, const Tensor& x, const Tensor& shift, const Tensor& scale) {
    node->save_for_backward({x, shift, scale});
    return cpu::norm_modulate(x, {.shift = shift, .scale = scale, .gate = {}});
  }
  static variable_list backward(AutogradContext* node, const variable_list& grad) {
    const variable_list s = saved(node);
    const auto d = cpu::norm_modulate_backward(grad[0], s[0], s[2],
                                               {.activations = node->needs_input_grad(0),
                                                .parameters = node->needs_input_grad(1) || node->needs_input_grad(2)});
    return {d.x_BLD, as_type_of(d.shift_BD, s[1]), d.scale_BD};
  }
};

struct GateResidualNode : Function<GateResidualNode> {
  static Tensor forward(AutogradContext* node, const Tensor& x, const Tensor& gate, const Tensor& y) {
    node->save_for_backward({gate, y});
    return cpu::gate_residual(x, gate, y);
  }
  static variable_list backward(AutogradContext* node, const variable_list& grad) {
    const variable_list s = saved(node);
    const auto d = cpu::gate_residual_backward(
        grad[0], s[0], s[1], {.activations = node->needs_input_grad(2), .parameters = node->needs_input_grad(1)});
    return {grad[0], d.gate_BD, d.y_BLD};
  }
};

struct GeluTanhNode : Function<GeluTanhNode> {
  static Tensor forward(AutogradContext* node, const Tensor& x) {
    node->save_for_backward({x});
    return cpu::gelu_tanh(x);
  }
  static variable_list backward(AutogradContext* node, const variable_list& grad) {
    return {cpu::gelu_tanh_backward(grad[0], saved(node)[0])};
  }
};

struct ConcatGeluNode : Function<ConcatGeluNode> {
  static Tensor forward(AutogradContext* node, const Tensor& attention, const Tensor& mlp) {
    node->save_for_backward({mlp});
    node->saved_data["width"] = attention.size(-1);
    return cpu::concat_gelu(attention, mlp);
  }
  static variable_list backward(AutogradContext* node, const variable_list& grad) {
    const Tensor mlp = saved(node)[0];
    const int64_t width = node->saved_data["width"].toInt();
    const Tensor d_mlp =
        node->needs_input_grad(1) ? cpu::gelu_rows_backward(grad[0].narrow(-1, width, mlp.size(-1)), mlp) : Tensor();
    return {grad[0].narrow(-1, 0, width), d_mlp};
  }
};

std::vector<QkvStream> as_streams(TensorList tensors) {
  std::vector<QkvStream> streams;
  for (size_t i = 0; i + 2 < tensors.size(); i += 3) streams.push_back({tensors[i], tensors[i + 1], tensors[i + 2]});
  return streams;
}

struct QkNormRopeNode : Function<QkNormRopeNode> {
  /// `tensors` are qkv, q_scale, k_scale of each stream, then cos and sin.
  static variable_list forward(AutogradContext* node, TensorList tensors, int64_t head_width) {
    node->save_for_backward(tensors.vec());
    const size_t n = tensors.size();
    const Heads out =
        cpu::qk_norm_rope(as_streams(tensors.slice(0, n - 2)), {tensors[n - 2], tensors[n - 1]}, head_width);
    return {out.q_BHNK, out.k_BHNK, out.v_BHNK};
  }
  static variable_list backward(AutogradContext* node, const variable_list& grad) {
    const variable_list s = saved(node);
    const size_t n = s.size();
    variable_list out;
    for (const QkvStream& d : cpu::qk_norm_rope_backward(
             {grad[0], grad[1], grad[2]}, as_streams(TensorList(s).slice(0, n - 2)), {s[n - 2], s[n - 1]}))
      out.insert(out.end(), {d.qkv_BLE, d.q_scale_K, d.k_scale_K});
    out.resize(n + 1);  // nothing for the rotary table and the head width
    return out;
  }
};

struct AttentionNode : Function<AttentionNode> {
  static Tensor forward(AutogradContext* node, const Tensor& q, const Tensor& k, const Tensor& v) {
    const Heads heads{q, k.contiguous(), v.contiguous()};
    const cpu::AttentionResult result = cpu::recorded_attention(heads);
    node->save_for_backward({heads.q_BHNK, heads.k_BHNK, heads.v_BHNK, result.out_BND, result.log_sum_exp_BHN});
    return result.out_BND;
  }
  static variable_list backward(AutogradContext* node, const variable_list& grad) {
    const variable_list s = saved(node);
    const Heads d = cpu::attention_backward(grad[0], {s[0], s[1], s[2]}, {s[3], s[4]});
    return {d.q_BHNK, d.k_BHNK, d.v_BHNK};
  }
};

struct GroupNormSiluNode : Function<GroupNormSiluNode> {
  static Tensor forward(AutogradContext* node, const Tensor& x, const Tensor& weight, const Tensor& bias,
                        int64_t groups, double eps) {
    const cpu::GroupStatistics statistics = cpu::group_statistics(x, groups, eps);
    node->save_for_backward({x, weight, bias, statistics.mean_BG, statistics.rstd_BG});
    return cpu::group_norm_silu(x, weight, bias, statistics);
  }
  static variable_list backward(AutogradContext* node, const variable_list& grad) {
    const variable_list s = saved(node);
    const auto d = cpu::group_norm_silu_backward(grad[0], s[0], s[1], s[2], {s[3], s[4]});
    return {d.x_BCHW, as_type_of(d.weight_C, s[1]), as_type_of(d.bias_C, s[2]), {}, {}};
  }
};

}  // namespace

Tensor norm_modulate(const Tensor& x_BLD, const Modulation& m) {
  return NormModulateNode::apply(x_BLD, m.shift, m.scale);
}

Tensor gate_residual(const Tensor& x_BLD, const Tensor& gate_BD, const Tensor& y_BLD) {
  return GateResidualNode::apply(x_BLD, gate_BD, y_BLD);
}

Tensor gelu_tanh(const Tensor& x) { return GeluTanhNode::apply(x); }

Heads qk_norm_rope(const std::vector<QkvStream>& streams, const RotaryTable& table, int64_t head_width) {
  variable_list tensors;
  for (const QkvStream& s : streams) tensors.insert(tensors.end(), {s.qkv_BLE, s.q_scale_K, s.k_scale_K});
  tensors.insert(tensors.end(), {table.cos_NC, table.sin_NC});
  const variable_list out = QkNormRopeNode::apply(TensorList(tensors), head_width);
  return {out[0], out[1], out[2]};
}

Tensor attention(const Heads& heads) { return AttentionNode::apply(heads.q_BHNK, heads.k_BHNK, heads.v_BHNK); }

Tensor concat_gelu(const Tensor& attention_BND, const Tensor& mlp_BNM) {
  return ConcatGeluNode::apply(attention_BND, mlp_BNM);
}

Tensor group_norm_silu(const Tensor& x_BCHW, const Tensor& weight_C, const Tensor& bias_C, int64_t groups, double eps) {
  return GroupNormSiluNode::apply(x_BCHW, weight_C, bias_C, groups, eps);
}

}  // namespace calotype::kernels::autograd
