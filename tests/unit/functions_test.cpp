// Fused steps against fp64 autograd of their definitions in ATen operators.
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <vector>

#include "core/error.h"
#include "engine/attention.h"
#include "engine/functions.h"
#include "train_testing.h"

namespace slmc::engine {
namespace {

using slmc::testing::max_difference;
using slmc::testing::normal;
using slmc::testing::relative_difference;

using Step = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

struct Outcome {
  at::Tensor value;
  std::vector<at::Tensor> gradients;
};

Outcome outcome(const Step& step, const std::vector<at::Tensor>& inputs, at::ScalarType type, std::uint64_t seed) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& x : inputs) leaves.push_back(x.to(type, false, true).requires_grad_());
  const at::Tensor value = step(leaves);
  value.backward(normal(value.sizes(), seed, 1.0, type));
  Outcome out{value.detach(), {}};
  for (const at::Tensor& x : leaves) out.gradients.push_back(x.grad());
  return out;
}

// fp32 rounding of sums of a few hundred terms.
void expect_same(const Step& fused, const Step& definition, const std::vector<at::Tensor>& inputs, double tolerance = 3e-6) {
  const Outcome got = outcome(fused, inputs, at::kFloat, 99), want = outcome(definition, inputs, at::kDouble, 99);
  EXPECT_LE(relative_difference(got.value, want.value), tolerance);
  for (std::size_t i = 0; i < inputs.size(); ++i) EXPECT_LE(relative_difference(got.gradients[i], want.gradients[i]), tolerance) << "input " << i;
}

TEST(Functions, RmsNorm) {
  for (const auto& [rows, n] : {std::pair{1, 2}, {3, 7}, {63, 64}, {130, 577}}) {
    const Step fused = [](const auto& in) { return rms_norm(in[0], in[1], 1e-5); };
    const Step definition = [](const auto& in) { return in[0].div(in[0].square().mean({-1}, true).add(1e-5).sqrt()).mul(in[1]); };
    expect_same(fused, definition, {normal({2, rows, n}, n), normal({n}, n + 1)});
  }
}

TEST(Functions, RmsNormOfAFrozenGain) {
  const at::Tensor x = normal({9, 5}, 1).requires_grad_(), gain = normal({5}, 2);
  rms_norm(x, gain, 1e-5).sum().backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(gain.grad().defined());
}

at::Tensor silu_definition(const at::Tensor& gate, const at::Tensor& up) { return gate.div(gate.neg().exp().add(1)).mul(up); }

TEST(Functions, GatedSilu) {
  for (const std::int64_t n : {1, 31, 16'385}) {
    expect_same([](const auto& in) { return gated_silu(in[0], in[1]); },
                [](const auto& in) { return silu_definition(in[0], in[1]); }, {normal({2, n}, n, 3.0), normal({2, n}, n + 1)});
  }
  const at::Tensor far = at::arange(-200, 200, at::kFloat), up = at::arange(-200, 200, at::kFloat).div(100);
  EXPECT_FALSE(gated_silu(far, up).isnan().any().item<bool>());
}

TEST(Functions, Linear) {
  expect_same([](const auto& in) { return linear(in[0], in[1], in[2]); }, [](const auto& in) { return in[0].matmul(in[1].t()).add(in[2]); },
              {normal({2, 7, 24}, 1), normal({40, 24}, 2), normal({40}, 3)});
  expect_same([](const auto& in) { return linear(in[0].transpose(0, 1), in[1], {}); },
              [](const auto& in) { return in[0].transpose(0, 1).matmul(in[1].t()); }, {normal({2, 7, 24}, 1), normal({40, 24}, 2)});
}

// The input is made again in backward: for several maps of one norm, and behind an activation.
TEST(Functions, LinearOfStepsThatAreMadeAgain) {
  const Step fused = [](const auto& in) {
    const at::Tensor x = rms_norm(in[0], in[1], 1e-5);
    return linear(gated_silu(linear(x, in[2], {}), linear(x, in[3], {})), in[4], {});
  };
  const Step definition = [](const auto& in) {
    const at::Tensor x = in[0].div(in[0].square().mean({-1}, true).add(1e-5).sqrt()).mul(in[1]);
    return silu_definition(x.matmul(in[2].t()), x.matmul(in[3].t())).matmul(in[4].t());
  };
  expect_same(fused, definition, {normal({2, 70, 24}, 1), normal({24}, 2), normal({40, 24}, 3), normal({40, 24}, 4), normal({24, 40}, 5)}, 1e-5);
}

TEST(Functions, LinearKeepsNoneOfThem) {
  const at::Tensor x = normal({3, 8}, 1).requires_grad_(), gain = normal({8}, 2), w = normal({4, 8}, 3).requires_grad_();
  const at::Tensor n = rms_norm(x, gain, 1e-5), of_norm = linear(n, w, {});
  const at::Tensor h = gated_silu(x, x), of_gate = linear(h, w, {});
  EXPECT_EQ(n.storage().use_count(), 1u);
  EXPECT_EQ(h.storage().use_count(), 1u);
}

TEST(Functions, LinearOfFrozenWeightsOrInputs) {
  const at::Tensor x = normal({3, 8}, 1), w = normal({4, 8}, 3);
  const at::Tensor free_x = x.clone().requires_grad_(), free_w = w.clone().requires_grad_();
  linear(free_x, w, {}).sum().backward();
  linear(x, free_w, {}).sum().backward();
  EXPECT_LE(max_difference(free_x.grad(), w.sum(0).expand({3, 8})), 1e-6);
  EXPECT_LE(max_difference(free_w.grad(), x.sum(0).expand({4, 8})), 1e-6);
  EXPECT_FALSE(linear(x, w, {}).requires_grad());
}

TEST(Functions, RotatePairs) {
  for (const auto& [freq, width] : {std::pair{4, 8}, {8, 27}, {16, 32}}) {
    const at::Tensor angles = normal({11, freq}, 3, 2.0, at::kDouble), cos = angles.cos(), sin = angles.sin();
    const at::Tensor cos32 = cos.to(at::kFloat), sin32 = sin.to(at::kFloat);
    const Step definition = [&, f = freq, w = width](const auto& in) {
      const at::Tensor c = cos32.to(at::kDouble).unsqueeze(1), s = sin32.to(at::kDouble).unsqueeze(1);
      const at::Tensor a = in[0].narrow(3, 0, f), b = in[0].narrow(3, f, f);
      return at::cat({a.mul(c).sub(b.mul(s)), b.mul(c).add(a.mul(s)), in[0].narrow(3, 2 * f, w - 2 * f)}, 3);
    };
    expect_same([&](const auto& in) { return rotate_pairs(in[0], cos32, sin32); }, definition, {normal({2, 11, 3, width}, 4)});
  }
}

// softmax over a masked [T, T] matrix, written out.
at::Tensor attention_definition(const std::vector<at::Tensor>& in, double scale, const at::Tensor& first) {
  const at::Tensor &q = in[0], &k = in[1], &v = in[2];
  const std::int64_t tokens = q.size(1), repeat = q.size(2) / k.size(2);
  const at::Tensor keys = k.repeat_interleave(repeat, 2), values = v.repeat_interleave(repeat, 2);
  at::Tensor scores = q.transpose(1, 2).matmul(keys.permute({0, 2, 3, 1})).mul(scale);
  const at::Tensor at = at::arange(tokens, at::kLong);
  at::Tensor hidden = at.unsqueeze(0).gt(at.unsqueeze(1)).unsqueeze(0);
  if (first.defined()) hidden = hidden.logical_or(at.view({1, 1, tokens}).lt(first.unsqueeze(2)));
  scores = scores.masked_fill(hidden.unsqueeze(1), -std::numeric_limits<double>::infinity());
  return scores.softmax(-1).matmul(values.transpose(1, 2)).transpose(1, 2);
}

struct AttentionCase {
  std::int64_t batch, tokens, heads, groups, d, vd;
};

void compare_attention(const AttentionCase& c, const at::Tensor& first) {
  SCOPED_TRACE(::testing::Message() << c.batch << " x " << c.tokens << ", " << c.heads << " heads, " << c.groups << " groups, " << c.d << " and " << c.vd);
  const double scale = 1.3 / std::sqrt(static_cast<double>(c.d));
  expect_same([&](const auto& in) { return causal_attention(in[0], in[1], in[2], scale, first); },
              [&](const auto& in) { return attention_definition(in, scale, first); },
              {normal({c.batch, c.tokens, c.heads, c.d}, 1), normal({c.batch, c.tokens, c.groups, c.d}, 2), normal({c.batch, c.tokens, c.groups, c.vd}, 3)}, 1e-5);
}

class AttentionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!attention_supported({1, 1, 1, 1, 16, 16, 1.0})) GTEST_SKIP() << "this CPU has no AVX-512: layers.cpp uses LibTorch's attention";
  }
};

TEST_F(AttentionTest, EqualsTheDefinition) {
  for (const AttentionCase& c : {AttentionCase{1, 1, 1, 1, 16, 16}, {2, 17, 3, 1, 16, 32}, {1, 64, 4, 4, 64, 64}, {2, 65, 9, 3, 64, 64},
                                 {1, 131, 10, 2, 80, 80}, {1, 97, 60, 1, 32, 16}, {1, 300, 2, 2, 128, 48}}) {
    compare_attention(c, {});
  }
}

TEST_F(AttentionTest, StaysInsideDocuments) {
  const std::int64_t tokens = 200;
  for (const std::int64_t step : {1, 7, 64, 90, 199}) {
    at::Tensor first = at::empty({2, tokens}, at::kLong);
    for (std::int64_t t = 0; t < tokens; ++t) {
      first[0][t] = t / step * step;                       // documents of `step` tokens
      first[1][t] = std::max<std::int64_t>(0, t - step);   // a sliding window
    }
    SCOPED_TRACE(step);
    compare_attention({2, tokens, 6, 2, 32, 32}, first);
  }
}

TEST_F(AttentionTest, SurvivesScoresOfAnySize) {
  at::Tensor q = normal({1, 40, 2, 16}, 1, 100.0).requires_grad_(), k = normal({1, 40, 2, 16}, 2, 100.0), v = normal({1, 40, 2, 16}, 3);
  const at::Tensor out = causal_attention(q, k, v, 1.0, {});
  out.sum().backward();
  EXPECT_FALSE(out.isnan().any().item<bool>());
  EXPECT_FALSE(q.grad().isnan().any().item<bool>());
  EXPECT_LE(max_difference(out, attention_definition({q.detach().to(at::kDouble), k.to(at::kDouble), v.to(at::kDouble)}, 1.0, {})), 2e-2);
}

TEST_F(AttentionTest, SameBitsForAnyNumberOfThreads) {
  const Step step = [](const auto& in) { return causal_attention(in[0], in[1], in[2], 0.2, {}); };
  const std::vector<at::Tensor> in{normal({3, 90, 4, 32}, 1), normal({3, 90, 2, 32}, 2), normal({3, 90, 2, 32}, 3)};
  const Outcome one = outcome(step, in, at::kFloat, 5);
  const int before = at::get_num_threads();
  for (const int threads : {2, 3}) {
    at::set_num_threads(threads);
    const Outcome other = outcome(step, in, at::kFloat, 5);
    EXPECT_TRUE(other.value.equal(one.value));
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(other.gradients[i].equal(one.gradients[i]));
  }
  at::set_num_threads(before);
}

TEST(Functions, SecondDerivativesAreRefused) {
  const at::Tensor x = normal({2, 16}, 1).requires_grad_();
  EXPECT_THROW(gated_silu(x, x).sum().backward({}, false, true), Error);
}

}  // namespace
}  // namespace slmc::engine
