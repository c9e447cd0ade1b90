// The fused kernels against the ATen chains of fused_ops_reference.cpp, which the transformer's golden tests tie to
// diffusers. f32: another order of sums and fused multiply-adds, some 1e-6. bf16: the same rounding points, so results
// are equal but where the f32 values straddle a rounding boundary, one unit in 2⁸ of few numbers.
#include "kernels/fused_ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "kernels/attention_cpu.h"
#include "kernels/fused_ops_cpu.h"
#include "support/golden.h"

namespace calotype::kernels {
namespace {

struct Case {
  at::ScalarType dtype;
  int64_t batch, tokens, heads, head_width;
  int64_t width() const { return heads * head_width; }
};

double bound(const Case& c) { return c.dtype == at::kFloat ? 2e-6 : 1e-3; }

class FusedOps : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { at::manual_seed(11); }
  Tensor random(std::vector<int64_t> shape) const { return at::randn(shape).to(GetParam().dtype); }
};

TEST_P(FusedOps, NormModulate) {
  const Case c = GetParam();
  const Tensor x = random({c.batch, c.tokens, c.width()}) * 3 + 1;
  const Modulation m{.shift = random({c.batch, c.width()}), .scale = random({c.batch, c.width()}), .gate = {}};
  test::expect_close(cpu::norm_modulate(x, m), reference::norm_modulate(x, m), {.relative = bound(c)});
}

TEST_P(FusedOps, GateResidual) {
  const Case c = GetParam();
  const Tensor x = random({c.batch, c.tokens, c.width()}), y = random({c.batch, c.tokens, c.width()}),
               gate = random({c.batch, c.width()});
  test::expect_close(cpu::gate_residual(x, gate, y), reference::gate_residual(x, gate, y), {.relative = bound(c) / 10});
}

TEST_P(FusedOps, GeluTanh) {
  const Case c = GetParam();
  Tensor x = random({c.batch, c.tokens, c.width()}) * 4;
  x[0][0][0] = -90.0;
  x[0][0][1] = 1e30;
  x[0][0][2] = 0.0;
  const Tensor got = cpu::gelu_tanh(x), want = reference::gelu_tanh(x);
  EXPECT_TRUE(got.isfinite().all().item<bool>());
  EXPECT_NEAR(got[0][0][0].item<double>(), 0.0, 1e-30);
  EXPECT_LE((got.to(at::kDouble) - want.to(at::kDouble)).slice(1, 1).abs().max().item<double>(),
            c.dtype == at::kFloat ? 1e-5 : 0.07);
  test::expect_close(got.slice(1, 1), want.slice(1, 1), {.relative = bound(c)});
}

TEST_P(FusedOps, QkNormRopeJoinsTwoStreams) {
  const Case c = GetParam();
  const auto stream = [&](int64_t tokens) {
    const Tensor wide = random({c.batch, tokens, 3 * c.width() + 7});  // strided rows, as linear1's are
    return QkvStream{wide.narrow(2, 0, 3 * c.width()), random({c.head_width}), random({c.head_width})};
  };
  const std::vector<QkvStream> streams = {stream(5), stream(c.tokens)};
  const Tensor angles = at::randn({5 + c.tokens, c.head_width / 2}) * 3;
  const RotaryTable table{angles.cos(), angles.sin()};
  const Heads got = cpu::qk_norm_rope(streams, table, c.head_width),
              want = reference::qk_norm_rope(streams, table, c.head_width);
  test::expect_close(got.q_BHNK, want.q_BHNK, {.relative = bound(c)}, "q");
  test::expect_close(got.k_BHNK, want.k_BHNK, {.relative = bound(c)}, "k");
  EXPECT_TRUE(got.v_BHNK.equal(want.v_BHNK));
}

TEST_P(FusedOps, ConcatGelu) {
  const Case c = GetParam();
  const Tensor attended = random({c.batch, c.tokens, c.width()});
  const Tensor mlp = random({c.batch, c.tokens, 2 * c.width() + 3}).narrow(2, 3, 2 * c.width());
  test::expect_close(cpu::concat_gelu(attended, mlp), reference::concat_gelu(attended, mlp), {.relative = bound(c)});
}

// Against attention in f64; ATen's own kernel has the same distance.
TEST_P(FusedOps, AttentionMatchesDoublePrecision) {
  const Case c = GetParam();
  const std::vector<int64_t> shape = {c.batch, c.heads, c.tokens, c.head_width};
  const Heads heads{random(shape) * 2, random(shape) * 2, random(shape)};
  if (!cpu::attention_serves(heads)) GTEST_SKIP() << "this processor has no block products; ATen's attention is used";
  const auto f64 = [](const Tensor& t) { return t.to(at::kDouble); };
  const Tensor want = reference::attention({f64(heads.q_BHNK), f64(heads.k_BHNK), f64(heads.v_BHNK)});
  const double ours = test::relative_error(cpu::attention(heads), want),
               aten = test::relative_error(reference::attention(heads), want);
  EXPECT_LE(ours, c.dtype == at::kFloat ? 3e-6 : 6e-3);
  EXPECT_LE(ours, 1.5 * aten + 1e-6);
}

TEST_P(FusedOps, ResultsDoNotDependOnThreads) {
  const Case c = GetParam();
  const std::vector<int64_t> shape = {c.batch, c.heads, c.tokens, c.head_width};
  const Heads heads{random(shape), random(shape), random(shape)};
  const Tensor x = random({c.batch, c.tokens, c.width()});
  const Modulation m{.shift = random({c.batch, c.width()}), .scale = random({c.batch, c.width()}), .gate = {}};
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Tensor attended = attention(heads), normed = norm_modulate(x, m), activated = gelu_tanh(x);
  at::set_num_threads(3);
  EXPECT_TRUE(attention(heads).equal(attended));
  EXPECT_TRUE(norm_modulate(x, m).equal(normed));
  EXPECT_TRUE(gelu_tanh(x).equal(activated));
  at::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Shapes, FusedOps,
                         testing::Values(Case{at::kFloat, 2, 70, 3, 10}, Case{at::kFloat, 1, 301, 2, 128},
                                         Case{at::kFloat, 1, 33, 1, 512}, Case{at::kBFloat16, 2, 70, 3, 10},
                                         Case{at::kBFloat16, 1, 301, 2, 128}, Case{at::kBFloat16, 3, 5, 5, 6},
                                         Case{at::kBFloat16, 1, 600, 1, 64}));

}  // namespace
}  // namespace calotype::kernels
