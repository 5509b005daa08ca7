// Depth: the judge against the definition, the searches against trying everything, the repair against least squares and its claim.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/stream.h"
#include "methods_testing.h"
#include "pruning/depth/heal.h"
#include "pruning/depth/search.h"

namespace slmc::pruning {
namespace {

using testing_methods::random_model;
using testing_methods::random_windows;
using testing_methods::SilentEvents;

// A model with its weights in memory and calibration windows.
struct Case {
  ir::Model model;
  engine::Arch arch;
  engine::PlainWeights weights;
  at::Tensor windows;
  explicit Case(std::int64_t blocks, double block_size = 0.5)
      : model(random_model({.hidden = 16, .blocks = blocks, .kv = 2, .q = 2, .ffn = 32, .block_size = block_size})),
        arch(engine::arch_of(model)), weights(model, at::kFloat, at::kCPU), windows(random_windows(model, 12, 20, 3)) {}

  // Stream behind the last block without some blocks.
  at::Tensor without(const std::vector<std::int64_t>& removed, const Judge& judge) {
    at::Tensor x = judge.start().clone();
    for (std::int64_t i = 0; i < model.blocks(); ++i) {
      if (std::find(removed.begin(), removed.end(), i) == removed.end()) engine::run_windows(arch, weights, x, i, i + 1);
    }
    return x;
  }
};

// Mean KL between softmax of all logits at the judged positions, in fp64, by the formula.
double kl_by_definition(Case& c, const std::vector<std::int64_t>& removed, std::int64_t stride) {
  const at::NoGradGuard no_grad;
  engine::PlainWeights weights(c.model, at::kDouble, at::kCPU);
  const auto log_probs = [&](bool cut) {
    at::Tensor x = engine::embed(c.arch, weights, c.windows);
    for (std::int64_t i = 0; i < c.model.blocks(); ++i) {
      if (!cut || std::find(removed.begin(), removed.end(), i) == removed.end()) x = engine::run_blocks(c.arch, weights, x, i, i + 1);
    }
    return engine::logits(c.arch, weights, engine::final_norm(c.arch, weights, x)).log_softmax(-1);
  };
  const at::Tensor p = log_probs(false), q = log_probs(true), kl = (p.exp() * (p - q)).sum(-1);
  double sum = 0;
  std::int64_t count = 0;
  for (std::int64_t w = 0; w < kl.size(0); ++w) {
    for (std::int64_t t = stride - 1; t + 1 < kl.size(1); t += stride) sum += kl[w][t].item<double>(), ++count;
  }
  return sum / static_cast<double>(count);
}

TEST(Judge, EqualsTheDefinition) {
  Case c(4);
  for (const std::int64_t stride : {1, 4}) {
    const Judge judge(c.arch, c.weights, c.windows, stride);
    EXPECT_NEAR(judge.of(c.without({}, judge)).kl, 0, 1e-9);
    EXPECT_NEAR(judge.of(c.without({1, 2}, judge)).kl, kl_by_definition(c, {1, 2}, stride), 1e-5);
  }
}

TEST(Judge, LossesAreThoseOfTheNextToken) {
  Case c(3);
  const at::NoGradGuard no_grad;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const at::Tensor log_p = engine::logits(c.arch, c.weights, engine::hidden_states(c.arch, c.weights, c.windows)).to(at::kDouble).log_softmax(-1);
  const std::int64_t t = c.windows.size(1);
  const double want = -log_p.narrow(1, 0, t - 1).gather(2, c.windows.narrow(1, 1, t - 1).unsqueeze(2)).mean().item<double>();
  const Distance d = judge.of(c.without({}, judge));
  EXPECT_NEAR(d.loss, want, 1e-5);
  EXPECT_NEAR(d.loss_whole, want, 1e-5);
}

TEST(Search, BlockInfluenceTakesTheSmallestAndTheFirstOfEquals) {
  const std::vector<Removal> r = by_block_influence({0.9, 0.1, 0.3, 0.1, 0.2}, 3);
  ASSERT_EQ(r.size(), 3u);
  EXPECT_EQ(r[0].block, 1);
  EXPECT_EQ(r[1].block, 3);
  EXPECT_EQ(r[2].block, 4);
}

// NaN compares as nothing: an overflowing model would lose whichever blocks come first.
TEST(Search, InfluenceOfOverflowingActivationsIsRefused) {
  const at::Tensor x = at::ones({1, 2, 3}), bad = x / 0.0;
  EXPECT_NEAR(influence_of(x, x, 0), 0, 1e-12);
  EXPECT_THROW(influence_of(x, bad, 0), Error);
}

TEST(Search, GreedyTakesTheBestOfAllInEachRound) {
  Case c(6);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  SilentEvents events;
  const std::vector<Removal> got = by_greedy_kl(judge, c.arch, c.weights, 3, 100, events);
  std::vector<std::int64_t> removed;
  for (const Removal& r : got) {
    double best = 1e300;
    std::int64_t at = -1;
    for (std::int64_t i = 0; i < 6; ++i) {
      if (std::find(removed.begin(), removed.end(), i) != removed.end()) continue;
      std::vector<std::int64_t> tried = removed;
      tried.push_back(i);
      const double kl = kl_by_definition(c, tried, 1);
      if (kl < best) best = kl, at = i;
    }
    EXPECT_EQ(r.block, at);
    EXPECT_NEAR(r.score, best, 1e-5);
    removed.push_back(r.block);
  }
}

TEST(Search, ShortlistLimitsCandidatesButNotEveryThirdRound) {
  Case c(8);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  SilentEvents events;
  const std::vector<Removal> got = by_greedy_kl(judge, c.arch, c.weights, 1, 1, events);
  EXPECT_EQ(got[0].block, by_block_influence(judge.influence(), 1)[0].block);       // the only candidate
}

TEST(Heal, GapsAreRunsOfRemovedBlocks) {
  const std::vector<Gap> g = gaps_of({0, 3, 4, 5, 9});
  ASSERT_EQ(g.size(), 3u);
  EXPECT_EQ(g[0].before, -1);
  EXPECT_EQ(g[1].before, 2);
  EXPECT_EQ(g[1].last, 5);
  EXPECT_EQ(g[2].first, 9);
}

TEST(Heal, EqualsRidgeRegressionOnTheMissingStream) {
  Case c(4);
  const at::NoGradGuard no_grad;
  SilentEvents events;
  const at::Tensor fit = random_windows(c.model, 40, 20, 11);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const Healed healed = heal(c.model, c.weights, {2}, fit, judge, events);
  ASSERT_EQ(healed.gaps.size(), 1u);
  const HealedGap& gap = healed.gaps[0];
  ASSERT_GT(gap.alpha, 0);
  // a, y and t from taps of the decoder in fp64; W' from the normal equations with the ridge that was chosen.
  engine::PlainWeights weights(c.model, at::kDouble, at::kCPU);
  struct Inputs : engine::Tap {
    at::Tensor a;
    bool wants(const std::string& site) const override { return site == "block.1.ffn.down.in"; }
    void see(const std::string&, const at::Tensor& v) override { a = v.flatten(0, 1).clone(); }
  } tap;
  const at::Tensor x = engine::run_blocks(c.arch, weights, engine::embed(c.arch, weights, fit), 0, 1);
  const at::Tensor y = engine::run_blocks(c.arch, weights, x, 1, 2, {.tap = &tap}), t = engine::run_blocks(c.arch, weights, y, 2, 3);
  const double n = static_cast<double>(tap.a.size(0));
  const at::Tensor a = at::mm(tap.a.t(), tap.a) / n, r = at::mm((t - y).flatten(0, 1).t(), tap.a) / n;
  const at::Tensor damped = a + at::eye(32, at::kDouble) * (gap.ridge * a.diagonal().mean().item<double>());
  const at::Tensor want = weights.tensor("block.1.ffn.down") + at::linalg_solve(damped, r.t()).t() * gap.alpha;
  EXPECT_LE((healed.weights.at("block.1.ffn.down").to(at::kDouble) - want).abs().max().item<double>(), 1e-4 * want.abs().max().item<double>());
}

TEST(Heal, LowersTheKlOfHeldOutTextAndLeavesTheWholeModelAlone) {
  Case c(6);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const at::Tensor before = c.weights.tensor("block.1.ffn.down").clone();
  const double cut = judge.of(c.without({2, 4}, judge)).kl;
  const Healed healed = heal(c.model, c.weights, {2, 4}, random_windows(c.model, 60, 20, 11), judge, events);
  EXPECT_TRUE(at::equal(c.weights.tensor("block.1.ffn.down"), before));
  ASSERT_EQ(healed.weights.size(), 2u);
  for (const auto& [name, w] : healed.weights) c.weights.all()[name] = w;
  const double after = judge.of(c.without({2, 4}, judge)).kl;
  EXPECT_NEAR(after, healed.gaps[1].kl, 1e-9);
  EXPECT_LT(healed.gaps[0].kl, cut);
  EXPECT_LT(after, healed.gaps[0].kl);
  EXPECT_LT(after, 0.8 * cut);
}

TEST(Heal, NothingStandsBeforeTheFirstBlock) {
  Case c(3);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const Healed healed = heal(c.model, c.weights, {0}, c.windows, judge, events);
  EXPECT_TRUE(healed.weights.empty());
  EXPECT_EQ(healed.gaps[0].alpha, 0);
  EXPECT_NEAR(healed.gaps[0].kl, judge.of(c.without({0}, judge)).kl, 1e-9);
}

TEST(Heal, SameBytesForOneTwoAndThreeThreads) {
  Case c(4);
  SilentEvents events;
  at::Tensor first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const Judge judge(c.arch, c.weights, c.windows, 1);
    const at::Tensor now = heal(c.model, c.weights, {2}, random_windows(c.model, 20, 20, 11), judge, events).weights.at("block.1.ffn.down");
    if (!first.defined()) first = now;
    EXPECT_TRUE(at::equal(first, now)) << threads << " threads";
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace slmc::pruning
