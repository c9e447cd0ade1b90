// Gradients of the fused ops against autograd of the ATen chains of fused_ops_reference.cpp. f32: sums in another
// order, 1e-5 at most. bf16: the chain in f64 on the same bf16 numbers is the truth; the fused gradients, which round
// less often, may be at most 1.2 times as far from it as the bf16 chain's.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>

#include "base/error.h"
#include "kernels/fused_ops.h"
#include "support/golden.h"

namespace calotype::kernels {
namespace {

using Tensors = std::vector<Tensor>;
using Op = std::function<Tensors(const Tensors&)>;

struct Case {
  at::ScalarType dtype;
  int64_t batch, tokens, heads, head_width;
  int64_t width() const { return heads * head_width; }
};

/// Results and the gradients of all inputs for fixed random gradients of the results.
Tensors differentiate(const Op& op, const Tensors& inputs, at::ScalarType dtype) {
  Tensors leaves, weights;
  for (const Tensor& t : inputs) leaves.push_back(t.detach().clone().requires_grad_(true));
  Tensors out = op(leaves);
  for (const Tensor& t : out) {
    auto generator = at::detail::createCPUGenerator(5);
    weights.push_back(at::randn(t.sizes(), generator, at::TensorOptions(at::kFloat)).to(at::kBFloat16).to(dtype));
  }
  for (const Tensor& d : torch::autograd::grad(out, leaves, weights)) out.push_back(d);
  for (Tensor& t : out) t = t.detach();
  return out;
}

Tensors as(const Tensors& tensors, at::ScalarType dtype) {
  Tensors out;
  for (const Tensor& t : tensors) out.push_back(t.to(dtype));
  return out;
}

void compare(const Op& fused, const Op& chain, const Tensors& inputs, at::ScalarType dtype) {
  const Tensors got = differentiate(fused, inputs, dtype), unfused = differentiate(chain, inputs, dtype);
  const Tensors truth = differentiate(chain, as(inputs, at::kDouble), at::kDouble);
  ASSERT_EQ(got.size(), truth.size());
  for (size_t i = 0; i < got.size(); ++i) {
    SCOPED_TRACE(i < got.size() - inputs.size() ? "result " + std::to_string(i)
                                                : "input " + std::to_string(i + inputs.size() - got.size()));
    EXPECT_EQ(got[i].scalar_type(), unfused[i].scalar_type());
    const double ours = test::relative_error(got[i], truth[i]), theirs = test::relative_error(unfused[i], truth[i]);
    if (dtype == at::kFloat)
      EXPECT_LE(ours, 1e-5);
    else
      EXPECT_LE(ours, 1.2 * theirs + 1e-7);
  }
}

class FusedBackward : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { at::manual_seed(12); }
  Tensor random(std::vector<int64_t> shape) const { return at::randn(shape).to(GetParam().dtype); }
  Tensor tokens() const { return random({GetParam().batch, GetParam().tokens, GetParam().width()}); }
  Tensor vector() const { return random({GetParam().batch, GetParam().width()}); }
  void compare(const Op& fused, const Op& chain, const Tensors& inputs) const {
    kernels::compare(fused, chain, inputs, GetParam().dtype);
  }
};

TEST_P(FusedBackward, NormModulate) {
  compare(
      [](const Tensors& t) {
        return Tensors{norm_modulate(t[0], {t[1], t[2], {}})};
      },
      [](const Tensors& t) {
        return Tensors{reference::norm_modulate(t[0], {t[1], t[2], {}})};
      },
      {tokens() * 3 + 1, vector(), vector()});
}

TEST_P(FusedBackward, GateResidual) {
  compare([](const Tensors& t) { return Tensors{gate_residual(t[0], t[1], t[2])}; },
          [](const Tensors& t) { return Tensors{reference::gate_residual(t[0], t[1], t[2])}; },
          {tokens(), vector(), tokens()});
}

TEST_P(FusedBackward, GeluTanh) {
  const Tensor x = tokens() * 3;
  x[0][0][0] = -80.0;
  x[0][0][1] = 1e4;
  compare([](const Tensors& t) { return Tensors{gelu_tanh(t[0])}; },
          [](const Tensors& t) { return Tensors{reference::gelu_tanh(t[0])}; }, {x});
}

// mlp is a part of wider rows, as in single blocks.
TEST_P(FusedBackward, ConcatGelu) {
  const Case c = GetParam();
  const auto with = [&c](auto op) {
    return [op, c](const Tensors& t) { return Tensors{op(t[0], t[1].narrow(2, 3, 2 * c.width()))}; };
  };
  compare(with(concat_gelu), with(reference::concat_gelu), {tokens(), random({c.batch, c.tokens, 2 * c.width() + 3})});
}

TEST_P(FusedBackward, QkNormRopeJoinsTwoStreams) {
  const Case c = GetParam();
  const Tensor angles = at::randn({5 + c.tokens, c.head_width / 2}) * 3;
  const auto with = [&](auto op) {
    return [=](const Tensors& t) {
      const RotaryTable table{angles.cos(), angles.sin()};
      const Heads h = op({{t[0].narrow(2, 0, 3 * c.width()), t[1], t[2]}, {t[3], t[4], t[5]}}, table, c.head_width);
      return Tensors{h.q_BHNK, h.k_BHNK, h.v_BHNK};
    };
  };
  // rotate() of the chain computes in f32 even for f64 inputs, so that its truth is only that exact.
  const Tensors inputs = {random({c.batch, 5, 3 * c.width() + 7}),    random({c.head_width}), random({c.head_width}),
                          random({c.batch, c.tokens, 3 * c.width()}), random({c.head_width}), random({c.head_width})};
  compare(with(qk_norm_rope), with(reference::qk_norm_rope), inputs);
}

TEST_P(FusedBackward, Attention) {
  const Case c = GetParam();
  const std::vector<int64_t> shape = {c.batch, c.heads, c.tokens, c.head_width};
  compare(
      [](const Tensors& t) {
        return Tensors{attention({t[0], t[1], t[2]})};
      },
      [](const Tensors& t) {
        return Tensors{reference::attention({t[0], t[1], t[2]})};
      },
      {random(shape) * 2, random(shape) * 2, random(shape)});
}

// A whole single block without its matrix products: strided gradients, shared inputs and sums of gradients.
Tensors small_block(const Tensors& t, const Case& c) {
  const Tensor normed = norm_modulate(t[0], {t[1], t[2], {}});
  const Tensor angles = at::arange(c.tokens).unsqueeze(1) * at::linspace(0.1, 1, c.head_width / 2);
  const Tensor wide = at::cat({normed, normed * 0.5, normed, normed}, -1);
  const Heads heads =
      qk_norm_rope({{wide.narrow(2, 0, 3 * c.width()), t[3], t[4]}}, {angles.cos(), angles.sin()}, c.head_width);
  const Tensor joined = concat_gelu(attention(heads), wide.narrow(2, 3 * c.width(), c.width()));
  return {gate_residual(t[0], t[1], joined.narrow(2, 0, c.width()) + joined.narrow(2, c.width(), c.width()))};
}

TEST_P(FusedBackward, GradientsDoNotDependOnThreads) {
  const Case c = GetParam();
  const Tensors inputs = {tokens(), vector(), vector(), random({c.head_width}), random({c.head_width})};
  const Op block = [&c](const Tensors& t) { return small_block(t, c); };
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Tensors one = differentiate(block, inputs, c.dtype);
  at::set_num_threads(3);
  const Tensors three = differentiate(block, inputs, c.dtype);
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(three[i])) << i;
}

// Gradient checkpointing: the block runs again, recorded, inside the backward pass of a node around it.
struct Recomputed : torch::autograd::Function<Recomputed> {
  static Tensor forward(torch::autograd::AutogradContext* node, at::TensorList inputs, const Case& c) {
    node->save_for_backward(inputs.vec());
    node->saved_data["case"] = std::vector<int64_t>{c.batch, c.tokens, c.heads, c.head_width};
    return small_block(inputs.vec(), c)[0];
  }
  static Tensors backward(torch::autograd::AutogradContext* node, const Tensors& grad) {
    const std::vector<int64_t> sizes = node->saved_data["case"].toIntVector();
    Tensors leaves;
    for (const Tensor& t : node->get_saved_variables()) leaves.push_back(t.detach().requires_grad_(true));
    const at::AutoGradMode recording(true);
    const Case c{leaves[0].scalar_type(), sizes[0], sizes[1], sizes[2], sizes[3]};
    Tensors out = torch::autograd::grad(small_block(leaves, c), leaves, grad);
    out.emplace_back();  // nothing for the case
    return out;
  }
};

TEST_P(FusedBackward, WorksInsideAnotherBackward) {
  const Case c = GetParam();
  const Tensors inputs = {tokens(), vector(), vector(), random({c.head_width}), random({c.head_width})};
  const Tensors plain = differentiate([&c](const Tensors& t) { return small_block(t, c); }, inputs, c.dtype);
  const Tensors nested = differentiate(
      [&c](const Tensors& t) { return Tensors{Recomputed::apply(at::TensorList(t), c)}; }, inputs, c.dtype);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(plain[i].equal(nested[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(Shapes, FusedBackward,
                         testing::Values(Case{at::kFloat, 2, 70, 3, 10}, Case{at::kFloat, 1, 301, 2, 128},
                                         Case{at::kFloat, 1, 33, 1, 512}, Case{at::kFloat, 3, 2, 2, 2},
                                         Case{at::kBFloat16, 2, 70, 3, 10}, Case{at::kBFloat16, 1, 301, 2, 128},
                                         Case{at::kBFloat16, 3, 5, 5, 6}, Case{at::kBFloat16, 1, 600, 1, 64}));

struct NormCase {
  at::ScalarType dtype;
  int64_t batch, channels, height, width, groups;
  at::MemoryFormat format;
};

class GroupNormSilu : public testing::TestWithParam<NormCase> {};

TEST_P(GroupNormSilu, MatchesAten) {
  const NormCase c = GetParam();
  at::manual_seed(13);
  const Tensor x = (at::randn({c.batch, c.channels, c.height, c.width}) * 2 + 3).to(c.dtype);
  const auto with = [&c](auto op) {
    return [op, c](const Tensors& t) {
      const Tensor out = op(t[0].contiguous(c.format), t[1], t[2], c.groups, 1e-6);
      EXPECT_TRUE(out.is_contiguous(c.format));
      return Tensors{out};
    };
  };
  compare(with(group_norm_silu), with(reference::group_norm_silu),
          {x, at::randn({c.channels}).to(c.dtype), at::randn({c.channels}).to(c.dtype)}, c.dtype);
}

TEST_P(GroupNormSilu, SameBitsRecordedOrNotAndOnAnyThreads) {
  const NormCase c = GetParam();
  at::manual_seed(14);
  const Tensor x = at::randn({c.batch, c.channels, c.height, c.width}).to(c.dtype).contiguous(c.format),
               weight = at::randn({c.channels}).to(c.dtype), bias = at::randn({c.channels}).to(c.dtype);
  const Op op = [&c](const Tensors& t) { return Tensors{group_norm_silu(t[0], t[1], t[2], c.groups, 1e-6)}; };
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Tensors one = differentiate(op, {x, weight, bias}, c.dtype);
  at::set_num_threads(3);
  const Tensors three = differentiate(op, {x, weight, bias}, c.dtype);
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(three[i])) << i;
  EXPECT_TRUE(op({x, weight, bias})[0].equal(one[0]));
}

constexpr auto kNhwc = at::MemoryFormat::ChannelsLast, kNchw = at::MemoryFormat::Contiguous;
INSTANTIATE_TEST_SUITE_P(
    Shapes, GroupNormSilu,
    testing::Values(NormCase{at::kFloat, 2, 24, 9, 7, 8, kNhwc}, NormCase{at::kFloat, 1, 96, 41, 53, 32, kNhwc},
                    NormCase{at::kFloat, 2, 6, 5, 3, 3, kNchw}, NormCase{at::kFloat, 1, 4, 210, 190, 2, kNchw},
                    NormCase{at::kBFloat16, 2, 24, 9, 7, 8, kNhwc}, NormCase{at::kBFloat16, 1, 96, 41, 53, 32, kNhwc},
                    NormCase{at::kBFloat16, 2, 6, 25, 13, 3, kNchw}));

// Adapters train q_scale in f32 below bf16 activations, and modulation may come from f32 layers.
TEST(FusedBackwardTypes, ParametersMayBeFloatBelowBfloat16) {
  at::manual_seed(15);
  const Tensor x = at::randn({2, 9, 12}).to(at::kBFloat16).requires_grad_(true),
               shift = at::randn({2, 12}).requires_grad_(true), scale = at::randn({2, 12}).requires_grad_(true);
  norm_modulate(x, {shift, scale, {}}).sum().backward();
  EXPECT_EQ(x.grad().scalar_type(), at::kBFloat16);
  EXPECT_EQ(scale.grad().scalar_type(), at::kFloat);
  test::expect_close(shift.grad(), at::full({2, 12}, 9.0), {.relative = 1e-6});
  const Tensor normed = at::layer_norm(x.detach().to(at::kFloat), {12}, {}, {}, 1e-6);
  test::expect_close(scale.grad(), normed.sum(1), {.relative = 1e-5});
}

TEST(FusedBackwardTypes, OnlyWantedGradientsAppear) {
  const Tensor x = at::randn({1, 4, 8}), gate = at::randn({1, 8}).requires_grad_(true), y = at::randn({1, 4, 8});
  gate_residual(x, gate, y).sum().backward();
  EXPECT_FALSE(y.grad().defined());
  test::expect_close(gate.grad(), y.sum(1), {.relative = 1e-6});
}

TEST(FusedBackwardTypes, SecondDerivativesAreRefused) {
  const Tensor x = at::randn({1, 4, 8}).requires_grad_(true);
  const Tensor out = gelu_tanh(x).sum();
  EXPECT_THROW(torch::autograd::grad({out}, {x}, {}, true, true), base::Error);
}

}  // namespace
}  // namespace calotype::kernels
