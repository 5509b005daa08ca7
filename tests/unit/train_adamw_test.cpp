// AdamW against its formula in plain fp64 loops, schedules against worked values.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <vector>

#include "engine/train/adamw.h"
#include "engine/train/schedule.h"
#include "train_testing.h"

namespace slmc::engine {
namespace {

using slmc::testing::max_difference;
using slmc::testing::normal;

// arXiv:1711.05101, algorithm 2, one scalar at a time.
struct Scalar {
  double w, m = 0, v = 0;
  void update(double g, int t, double lr, double decay, const AdamWSettings& s) {
    m = s.beta1 * m + (1 - s.beta1) * g;
    v = s.beta2 * v + (1 - s.beta2) * g * g;
    w -= lr * decay * w;
    w -= lr * (m / (1 - std::pow(s.beta1, t))) / (std::sqrt(v / (1 - std::pow(s.beta2, t))) + s.eps);
  }
};

TEST(AdamW, EqualsTheFormula) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const AdamWSettings settings{0.9, 0.95, 1e-8};
    at::Tensor a = normal({37, 3}, 1, 1, type).requires_grad_(), b = normal({5}, 2, 1, type).requires_grad_();
    AdamW adam({{{{"a", a}}, 0.1, 1.0}, {{{"b", b}}, 0.0, 0.5}}, settings);
    std::vector<Scalar> oracle;
    for (const at::Tensor& x : {a, b}) {
      for (std::int64_t i = 0; i < x.numel(); ++i) oracle.push_back({x.detach().reshape({-1})[i].item<double>()});
    }
    const std::vector<double> factors{1.0, 0.25, 1.0, 0.5, 3.0};
    for (int t = 1; t <= 5; ++t) {
      const double lr = 0.01 * t;
      a.mutable_grad() = normal({37, 3}, 10 + t, 1, type);
      b.mutable_grad() = normal({5}, 20 + t, 1, type);
      for (std::int64_t i = 0; i < 116; ++i) {
        const at::Tensor& x = i < 111 ? a : b;
        const double g = x.grad().reshape({-1})[i < 111 ? i : i - 111].item<double>() * factors[t - 1];
        oracle[i].update(g, t, i < 111 ? lr : lr * 0.5, i < 111 ? 0.1 : 0.0, settings);
      }
      adam.update(t - 1, lr, factors[t - 1]);
      EXPECT_FALSE(a.grad().defined());                    // freed
    }
    const double tolerance = type == at::kFloat ? 2e-6 : 1e-7;   // the kernel keeps step and divisor in fp32
    for (std::int64_t i = 0; i < 116; ++i) {
      const at::Tensor& x = i < 111 ? a : b;
      EXPECT_NEAR(x.detach().reshape({-1})[i < 111 ? i : i - 111].item<double>(), oracle[i].w, tolerance) << i;
    }
  }
}

TEST(AdamW, LeavesParametersWithoutGradient) {
  at::Tensor a = normal({4}, 1).requires_grad_();
  AdamW adam({{{{"a", a}}, 0.1, 1.0}}, {});
  const at::Tensor before = a.detach().clone();
  adam.update(0, 1.0, 1.0);
  EXPECT_TRUE(a.equal(before));
}

TEST(AdamW, StateIsTheStorageItself) {
  at::Tensor a = normal({4}, 1).requires_grad_();
  AdamW adam({{{{"a", a}}, 0.1, 1.0}}, {});
  a.mutable_grad() = normal({4}, 2);
  adam.update(0, 0.1, 1.0);
  const auto state = adam.state();
  ASSERT_EQ(state.size(), 3u);
  EXPECT_EQ(state[1].name, "a.m");
  EXPECT_GT(state[2].value.abs().max().item<float>(), 0.0f);
  at::Tensor weights = state[0].value;
  weights.fill_(7);
  EXPECT_EQ(a[0].item<float>(), 7.0f);
}

TEST(Clipping, SumIsExactForAnyNumberOfThreads) {
  const at::Tensor x = normal({3 * 65'536 + 17}, 5);
  const double exact = x.to(at::kDouble).square().sum().item<double>(), one = sum_of_squares(x);
  EXPECT_NEAR(one, exact, 1e-9 * exact);
  const int before = at::get_num_threads();
  for (const int threads : {2, 3}) {
    at::set_num_threads(threads);
    EXPECT_EQ(sum_of_squares(x), one);
  }
  at::set_num_threads(before);
  EXPECT_EQ(sum_of_squares(at::Tensor(x.reshape({-1}).slice(0, 0, 0))), 0.0);
}

TEST(Clipping, BringsTheNormDown) {
  at::Tensor a = normal({300}, 1).requires_grad_(), b = normal({70}, 2).requires_grad_();
  AdamW adam({{{{"a", a}}, 0.1, 1.0}, {{{"b", b}}, 0.0, 1.0}}, {});
  a.mutable_grad() = normal({300}, 3);
  b.mutable_grad() = normal({70}, 4);
  const double norm = adam.gradient_norm();
  EXPECT_NEAR(norm, std::sqrt(a.grad().square().sum().item<double>() + b.grad().square().sum().item<double>()), 1e-4);
  EXPECT_NEAR(clip_factor(norm, 1.0) * norm, 1.0, 1e-12);
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_EQ(clip_factor(5.0, 0.0), 1.0);
}

TEST(Schedule, WarmupStableDecay) {
  const Schedule s{Schedule::Kind::Wsd, Schedule::Decay::OneMinusSqrt, 0.01, 0.0, 100, 10, 20};
  EXPECT_DOUBLE_EQ(rate_at(s, 0), 0.001);
  EXPECT_DOUBLE_EQ(rate_at(s, 9), 0.01);
  for (std::int64_t i = 10; i <= 80; ++i) EXPECT_DOUBLE_EQ(rate_at(s, i), 0.01) << i;
  EXPECT_DOUBLE_EQ(rate_at(s, 85), 0.01 * (1 - std::sqrt(0.25)));
  EXPECT_DOUBLE_EQ(rate_at(s, 99), 0.01 * (1 - std::sqrt(0.95)));
}

TEST(Schedule, MiniCpmVector) {                            // half-life of 5,000 updates: 0.01, 0.005, 0.0025, and 0.0003125 at 25,000
  const Schedule s{Schedule::Kind::Wsd, Schedule::Decay::Exponential, 0.01, std::pow(0.5, 5.6), 100'000, 0, 28'000};
  EXPECT_NEAR(rate_at(s, 72'000), 0.01, 1e-12);
  EXPECT_NEAR(rate_at(s, 77'000), 0.005, 1e-12);
  EXPECT_NEAR(rate_at(s, 82'000), 0.0025, 1e-12);
  EXPECT_NEAR(rate_at(s, 97'000), 0.0003125, 1e-12);
}

TEST(Schedule, CosineLinearConstant) {
  const Schedule cosine{Schedule::Kind::Cosine, {}, 1.0, 0.1, 1000, 0, 0};
  EXPECT_DOUBLE_EQ(rate_at(cosine, 0), 1.0);
  EXPECT_NEAR(rate_at(cosine, 500), 0.55, 1e-12);
  EXPECT_NEAR(rate_at(cosine, 999), 0.1, 1e-5);
  const Schedule linear{Schedule::Kind::Wsd, Schedule::Decay::Linear, 1.0, 0.2, 10, 0, 10};
  EXPECT_DOUBLE_EQ(rate_at(linear, 5), 0.6);
  const Schedule constant{Schedule::Kind::Constant, {}, 1.0, 0.0, 10, 2, 5};
  EXPECT_DOUBLE_EQ(rate_at(constant, 0), 0.5);
  EXPECT_DOUBLE_EQ(rate_at(constant, 9), 1.0);
}

TEST(Schedule, EveryUpdateOfEveryShapeMovesTheWeights) {
  for (const auto kind : {Schedule::Kind::Wsd, Schedule::Kind::Cosine, Schedule::Kind::Constant}) {
    for (const auto shape : {Schedule::Decay::OneMinusSqrt, Schedule::Decay::Exponential, Schedule::Decay::Linear}) {
      for (const std::int64_t steps : {1, 2, 3, 7, 50}) {
        const Schedule s{kind, shape, 1e-3, 0.03, steps, share_of(steps, 0.02, 10), share_of(steps, 0.2, 1)};
        for (std::int64_t i = 0; i < steps; ++i) {
          EXPECT_GT(rate_at(s, i), 0.0);
          EXPECT_LE(rate_at(s, i), 1e-3);
        }
      }
    }
  }
}

TEST(Schedule, Shares) {
  EXPECT_EQ(share_of(1000, 0.02, 10), 20);
  EXPECT_EQ(share_of(100, 0.02, 10), 10);
  EXPECT_EQ(share_of(7, 0.02, 10), 7);
}

}  // namespace
}  // namespace slmc::engine
