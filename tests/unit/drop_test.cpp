// Depth: the judge against the definition, the searches against trying everything, the repair against least squares and its claim.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/stream.h"
#include "ir/cost.h"
#include "ir/plan.h"
#include "depth_testing.h"
#include "pruning/depth/evolve.h"
#include "pruning/depth/heal.h"
#include "pruning/depth/search.h"
#include "pruning/depth/stream_change.h"

namespace slmc::pruning {
namespace {

using testing_methods::random_windows;
using testing_methods::SilentEvents;
using namespace testing_depth;

bool is_in(const std::vector<Unit>& removed, std::int64_t block, Part part) {
  return std::find(removed.begin(), removed.end(), Unit{block, part}) != removed.end();
}

// Logits in fp64 through the gates of the decoder, which share nothing with the sizes that the searches set to 0.
at::Tensor gated_log_probs(Case& c, const std::vector<Unit>& removed) {
  const at::NoGradGuard no_grad;
  engine::PlainWeights weights(c.model, at::kDouble, at::kCPU);
  engine::Gates gates;
  for (std::int64_t i = 0; i < c.model.blocks(); ++i) {
    const ir::BlockSizes& sizes = c.model.sizes().blocks[static_cast<std::size_t>(i)];
    const std::string block = "block." + std::to_string(i);
    if (is_in(removed, i, Part::Block) || is_in(removed, i, Part::Attention)) gates.of[block + ".kv"] = at::zeros({sizes.kv}, at::kDouble);
    if (is_in(removed, i, Part::Block) || is_in(removed, i, Part::FeedForward)) gates.of[block + ".ffn"] = at::zeros({sizes.ffn}, at::kDouble);
  }
  const engine::Pass pass{.gates = &gates};
  const at::Tensor x = engine::hidden_states(c.arch, weights, c.windows, pass);
  return engine::logits(c.arch, weights, x, pass).log_softmax(-1);
}

// Mean KL between softmax of all logits at the judged positions, in fp64, by the formula.
double kl_by_definition(Case& c, const std::vector<Unit>& removed, std::int64_t stride) {
  const at::Tensor p = gated_log_probs(c, {}), q = gated_log_probs(c, removed), kl = (p.exp() * (p - q)).sum(-1);
  double sum = 0;
  std::int64_t count = 0;
  for (std::int64_t w = 0; w < kl.size(0); ++w) {
    for (std::int64_t t = stride - 1; t + 1 < kl.size(1); t += stride) sum += kl[w][t].item<double>(), ++count;
  }
  return sum / static_cast<double>(count);
}

double loss_by_definition(Case& c, const std::vector<Unit>& removed) {
  const at::Tensor q = gated_log_probs(c, removed);
  const std::int64_t t = c.windows.size(1);
  return -q.narrow(1, 0, t - 1).gather(2, c.windows.narrow(1, 1, t - 1).unsqueeze(2)).mean().item<double>();
}

TEST(Judge, EqualsTheDefinition) {
  Case c(4);
  for (const std::int64_t stride : {1, 4}) {
    const Judge judge(c.arch, c.weights, c.windows, stride);
    EXPECT_NEAR(judge.of(c.without({}, judge)).kl, 0, 1e-9);
    EXPECT_NEAR(judge.of(c.without({1, 2}, judge)).kl, kl_by_definition(c, blocks({1, 2}), stride), 1e-5);
  }
}

TEST(Judge, LossesAreThoseOfTheNextToken) {
  Case c(3);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const Distance d = judge.of(c.without({1}, judge));
  EXPECT_NEAR(d.loss, loss_by_definition(c, blocks({1})), 1e-5);
  EXPECT_NEAR(d.loss_whole, loss_by_definition(c, {}), 1e-5);
}

TEST(Units, PartsWithoutSizesEqualGatesOfZeros) {
  Case c(4);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  for (const std::vector<Unit>& removed : {std::vector<Unit>{{1, Part::Attention}}, {{2, Part::FeedForward}}, {{0, Part::Attention}, {1, Part::FeedForward}, {3, Part::Block}}}) {
    EXPECT_NEAR(judge.of(c.behind(without(c.arch, removed), judge)).kl, kl_by_definition(c, removed, 1), 1e-5);
  }
}

TEST(Units, KindsAndParameters) {
  Case c(3);
  EXPECT_EQ(units_of(c.model.sizes(), "layer").size(), 3u);
  EXPECT_EQ(units_of(c.model.sizes(), "attn").size(), 3u);
  EXPECT_EQ(units_of(c.model.sizes(), "any").size(), 6u);
  // hidden 16, 4 heads of 8 in 2 groups, ffn 32: q, o 16 x 32; k, v 16 x 16; three matrices 16 x 32; a norm of 16 each.
  EXPECT_EQ(parameters_of(c.model, {1, Part::Attention}), 2 * 512 + 2 * 256 + 16);
  EXPECT_EQ(parameters_of(c.model, {1, Part::FeedForward}), 3 * 512 + 16);
  EXPECT_EQ(parameters_of(c.model, {1, Part::Block}), 2 * 512 + 2 * 256 + 3 * 512 + 32);
}

// 1 - mean cosine of the stream before and behind each block or part, from the decoder's own sites, in fp64.
TEST(Search, InfluencesEqualTheDefinition) {
  Case c(3);
  engine::PlainWeights weights(c.model, at::kDouble, at::kCPU);
  struct Sites : engine::Tap {
    std::map<std::string, at::Tensor> of;
    bool wants(const std::string& site) const override { return site.ends_with(".in") || site.ends_with(".mid") || site.ends_with(".out"); }
    void see(const std::string& site, const at::Tensor& v) override { of[site] = v.clone(); }
  } tap;
  const at::NoGradGuard no_grad;
  engine::run_blocks(c.arch, weights, engine::embed(c.arch, weights, c.windows), 0, 3, {.tap = &tap});
  const auto turned = [&](const std::string& a, const std::string& b) {
    const at::Tensor x = tap.of.at(a), y = tap.of.at(b);
    return 1 - ((x * y).sum(-1) / (x.pow(2).sum(-1) * y.pow(2).sum(-1)).sqrt()).mean().item<double>();
  };
  const std::vector<Unit> units = {{0, Part::Block}, {1, Part::Attention}, {1, Part::FeedForward}, {2, Part::Block}};
  const std::vector<double> got = means(influences(c.arch, c.weights, c.windows, units));
  EXPECT_NEAR(got[0], turned("block.0.in", "block.0.out"), 1e-6);
  EXPECT_NEAR(got[1], turned("block.1.in", "block.1.mid"), 1e-6);
  EXPECT_NEAR(got[2], turned("block.1.mid", "block.1.out"), 1e-6);
  EXPECT_NEAR(got[3], turned("block.2.in", "block.2.out"), 1e-6);
  for (const bool last : {false, true}) {
    const std::vector<double> angles = means(angular_distances(c.arch, c.weights, c.windows, 2, last));
    ASSERT_EQ(angles.size(), 2u);
    for (std::int64_t l = 0; l < 2; ++l) {
      const at::Tensor x = tap.of.at("block." + std::to_string(l) + ".in"), y = tap.of.at("block." + std::to_string(l + 1) + ".out");
      at::Tensor angle = ((x * y).sum(-1) / (x.pow(2).sum(-1) * y.pow(2).sum(-1)).sqrt()).acos() / 3.14159265358979323846;
      if (last) angle = angle.select(1, angle.size(1) - 1);
      EXPECT_NEAR(angles[static_cast<std::size_t>(l)], angle.mean().item<double>(), 1e-6);
    }
  }
}

TEST(Search, LowestTakesTheSmallestAndTheFirstOfEquals) {
  Case c(5);
  const std::vector<Removal> r = lowest(units_of(c.model.sizes(), "layer"), {0.9, 0.1, 0.3, 0.1, 0.2}, Goal(c.model, "layer", 3));
  EXPECT_EQ(units_in(r), blocks({1, 3, 4}));
  EXPECT_EQ(r[0].unit.block, 1);
  EXPECT_EQ(units_in(least_run({0.5, 0.2, 0.3, 0.2}, 2)), blocks({1, 2}));
}

// Attention has 1552 parameters, a feed-forward part 1552 too here: two blocks' worth are four parts of either kind.
TEST(Search, MixedPartsGoUntilTheirParametersAreGone) {
  Case c(4);
  const Goal goal(c.model, "any", 2);
  EXPECT_EQ(lowest(units_of(c.model.sizes(), "any"), {8, 7, 6, 5, 4, 3, 2, 1}, goal).size(), 4u);
  const double size = 1e-6 * static_cast<double>(parameters_of(c.model, {0, Part::Attention}));
  EXPECT_DOUBLE_EQ(goal.size({0, Part::Attention}), size);
}

// NaN compares as nothing: an overflowing model would lose whichever blocks come first.
TEST(Search, InfluenceOfOverflowingActivationsIsRefused) {
  const at::Tensor x = at::ones({1, 2, 3}), bad = x / 0.0;
  EXPECT_NEAR(influence_of(x, x, {}), 0, 1e-12);
  EXPECT_THROW(influence_of(x, bad, {}), Error);
}

// What the paper does, by hand: each candidate alone by the definition in fp64.
TEST(Search, OneShotRanksEachAloneByTheDefinition) {
  Case c(5);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  for (const Measure measure : {Measure::Kl, Measure::Loss}) {
    Trials trials(judge, c.arch, c.weights, measure, units_of(c.model.sizes(), "layer"));
    const std::vector<Removal> got = lowest(trials.units(), means(costs_alone(trials, events)), Goal(c.model, "layer", 2));
    std::vector<std::pair<double, std::int64_t>> want;
    for (std::int64_t i = 0; i < 5; ++i) {
      const double cost = measure == Measure::Kl ? kl_by_definition(c, blocks({i}), 1) : loss_by_definition(c, blocks({i})) - loss_by_definition(c, {});
      want.emplace_back(cost, i);
    }
    std::sort(want.begin(), want.end());
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(got[i].unit.block, want[i].second);
      EXPECT_NEAR(got[i].score, want[i].first, 1e-5);
    }
  }
}

// Each round by trying everything by the definition; early giving up and kept streams must not change it.
void expect_greedy(const std::string& kind, Measure measure) {
  Case c(6);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  SilentEvents events;
  Trials trials(judge, c.arch, c.weights, measure, units_of(c.model.sizes(), kind));
  const Goal goal(c.model, kind, 3);
  const std::vector<Removal> got = greedy(trials, goal, 100, events);
  std::vector<Unit> removed;
  const auto cost = [&](const std::vector<Unit>& units) { return measure == Measure::Kl ? kl_by_definition(c, units, 1) : loss_by_definition(c, units); };
  for (const Removal& r : got) {
    double best = 1e300;
    Unit at{-1};
    for (const Unit& unit : units_of(c.model.sizes(), kind)) {
      if (std::find(removed.begin(), removed.end(), unit) != removed.end()) continue;
      std::vector<Unit> tried = removed;
      tried.push_back(unit);
      const double now = cost(tried);
      if (now < best) best = now, at = unit;
    }
    EXPECT_EQ(to_string(r.unit), to_string(at));
    EXPECT_NEAR(r.score, best, 1e-5);
    removed.push_back(r.unit);
  }
  EXPECT_EQ(removed.size(), kind == "any" ? 6u : 3u);          // parts are of equal size here: six are three blocks' worth
}

TEST(Search, GreedyTakesTheBestOfAllInEachRound) {
  expect_greedy("layer", Measure::Kl);
  expect_greedy("layer", Measure::Loss);
}

TEST(Search, GreedyOverPartsTakesTheBestOfAllInEachRound) {
  expect_greedy("attn", Measure::Kl);
  expect_greedy("mlp", Measure::Kl);
  expect_greedy("any", Measure::Loss);
}

TEST(Search, ShortlistLimitsCandidatesButNotEveryThirdRound) {
  Case c(8);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  SilentEvents events;
  const std::vector<Unit> units = units_of(c.model.sizes(), "layer");
  Trials trials(judge, c.arch, c.weights, Measure::Kl, units);
  const std::vector<Removal> least = lowest(units, means(influences(c.arch, c.weights, c.windows, units)), Goal(c.model, "layer", 1));
  EXPECT_EQ(greedy(trials, Goal(c.model, "layer", 1), 1, events)[0].unit, least[0].unit);       // the only candidate
}

// A cut is given up exactly when its values exceed the best one's by three standard errors; the best one itself never is.
TEST(Trials, GiveUpOnlyWhatIsClearlyWorse) {
  Case c(6);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  Trials trials(judge, c.arch, c.weights, Measure::Kl, units_of(c.model.sizes(), "layer"));
  const auto full = [&](std::int64_t i) { return *trials.of(c.cut({i})); };
  std::int64_t given_up = 0;
  for (std::int64_t best = 0; best < 6; ++best) {
    const Score a = full(best);
    EXPECT_TRUE(trials.of(c.cut({best}), &a));
    for (std::int64_t i = 0; i < 6; ++i) {
      const Score b = full(i);
      bool clear = false;
      for (std::size_t n = 4; n < b.windows.size(); n += 4) {
        double mean = 0, square = 0;
        for (std::size_t w = 0; w < n; ++w) mean += (b.windows[w] - a.windows[w]) / static_cast<double>(n);
        for (std::size_t w = 0; w < n; ++w) square += std::pow(b.windows[w] - a.windows[w] - mean, 2);
        clear = clear || mean > 3 * std::sqrt(square / static_cast<double>(n - 1) / static_cast<double>(n));
      }
      EXPECT_EQ(trials.of(c.cut({i}), &a).has_value(), !clear);
      given_up += clear;
    }
  }
  EXPECT_GT(given_up, 0);
  EXPECT_EQ(trials.given_up(), given_up);
}

TEST(Trials, SettledStreamsGiveWhatAFreshRunGives) {
  Case c(6);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  Trials trials(judge, c.arch, c.weights, Measure::Kl, units_of(c.model.sizes(), "layer"));
  for (const std::vector<std::int64_t>& first : {std::vector<std::int64_t>{4}, {1}, {1, 4}, {5}, {}}) {
    trials.settle(c.cut(first));
    EXPECT_NEAR(trials.value(), judge.of(c.without(first, judge)).kl, 1e-12);
    EXPECT_NEAR(trials.of(c.cut({2, 3}))->increase(), judge.of(c.without({2, 3}, judge)).kl - trials.value(), 1e-12);
  }
}

// Started from the worst pair: no single swap of the result may be better, by trying them all.
TEST(Search, RefineEndsWhereNoSwapHelps) {
  Case c(6);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  std::map<std::vector<Unit>, double> cost;
  for (std::int64_t a = 0; a < 6; ++a) {
    for (std::int64_t b = a + 1; b < 6; ++b) cost[blocks({a, b})] = judge.of(c.without({a, b}, judge)).kl;
  }
  const auto worst = std::max_element(cost.begin(), cost.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  Trials trials(judge, c.arch, c.weights, Measure::Kl, units_of(c.model.sizes(), "layer"));
  const std::vector<Unit> got = units_in(refine(trials, c.arch, {{worst->first[0]}, {worst->first[1]}}, 100, events));
  ASSERT_TRUE(cost.contains(got));
  EXPECT_LT(cost[got], worst->second);
  for (const auto& [other, kl] : cost) {
    std::vector<Unit> shared;
    std::set_intersection(got.begin(), got.end(), other.begin(), other.end(), std::back_inserter(shared));
    if (shared.size() == 1) {
      EXPECT_LE(cost[got], kl + 1e-12);
    }
  }
}

// Of few cuts, enough generations find the best one; and every answer has the size that was asked for.
TEST(Search, EvolutionFindsTheBestOfFew) {
  Case c(6);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  std::map<std::vector<Unit>, double> cost;
  for (std::int64_t a = 0; a < 6; ++a) {
    for (std::int64_t b = a + 1; b < 6; ++b) cost[blocks({a, b})] = judge.of(c.without({a, b}, judge)).kl;
  }
  const auto best = std::min_element(cost.begin(), cost.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  Trials trials(judge, c.arch, c.weights, Measure::Kl, units_of(c.model.sizes(), "layer"));
  const std::vector<Removal> got = evolve(trials, c.arch, 2, {.generations = 10, .children = 8, .beginners = 4, .seed = 5}, events);
  EXPECT_EQ(units_in(got), best->first);
  Trials parts(judge, c.arch, c.weights, Measure::Kl, units_of(c.model.sizes(), "any"));
  const std::vector<Unit> mixed = units_in(evolve(parts, c.arch, 2, {.generations = 2, .children = 4, .beginners = 4, .seed = 5}, events));
  ASSERT_EQ(mixed.size(), 4u);
  EXPECT_EQ(std::count_if(mixed.begin(), mixed.end(), [](const Unit& u) { return u.part == Part::Attention; }), 2);
}

TEST(Search, SameAnswersForOneTwoAndThreeThreads) {
  Case c(6);
  SilentEvents events;
  std::vector<double> first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const Judge judge(c.arch, c.weights, c.windows, 2);
    std::vector<double> now;
    const auto add = [&](const std::vector<Removal>& removed) {
      for (const Removal& r : removed) now.push_back(static_cast<double>(r.unit.block)), now.push_back(r.score);
    };
    Trials trials(judge, c.arch, c.weights, Measure::Kl, units_of(c.model.sizes(), "any"));
    const std::vector<Removal> removed = greedy(trials, Goal(c.model, "any", 2), 4, events);
    add(removed);
    add(refine(trials, c.arch, removed, 4, events));
    add(evolve(trials, c.arch, 2, {.generations = 3, .children = 4, .beginners = 4, .seed = 1}, events));
    for (const double d : means(angular_distances(c.arch, c.weights, c.windows, 2, true))) now.push_back(d);
    for (const double i : means(influences(c.arch, c.weights, c.windows, units_of(c.model.sizes(), "any")))) now.push_back(i);
    if (first.empty()) first = now;
    EXPECT_EQ(first, now) << threads << " threads";
  }
  at::set_num_threads(1);
}

TEST(Heal, SitesAreKeptPartsBeforeRemovedOnes) {
  Case c(10);
  const std::vector<Gap> g = sites_of(c.arch.sizes, c.cut({0, 3, 4, 5, 9}).sizes, false);
  ASSERT_EQ(g.size(), 3u);
  EXPECT_EQ(g[0].before.block, -1);
  EXPECT_EQ(g[1].before, (Unit{2, Part::FeedForward}));
  EXPECT_EQ(g[1].removed.size(), 6u);
  EXPECT_EQ(g[1].after, (Unit{6, Part::Attention}));
  EXPECT_TRUE(g[1].whole_blocks());
  EXPECT_EQ(g[2].after.block, 10);
  const engine::Arch parts = without(c.arch, std::vector<Unit>{{3, Part::FeedForward}, {4, Part::Attention}});
  const std::vector<Gap> p = sites_of(c.arch.sizes, parts.sizes, false);
  ASSERT_EQ(p.size(), 1u);
  EXPECT_EQ(p[0].before, (Unit{3, Part::Attention}));
  EXPECT_EQ(p[0].after, (Unit{4, Part::FeedForward}));
  EXPECT_FALSE(p[0].whole_blocks());
  EXPECT_EQ(sites_of(c.arch.sizes, parts.sizes, true).size(), 1u + 11u);        // and all parts behind: one of block 4, ten of 5 .. 9
}

TEST(Heal, RefitIsWeightedRidgeRegressionOnTheMissingStream) {
  Case c(4);
  const at::NoGradGuard no_grad;
  SilentEvents events;
  const at::Tensor fit = random_windows(c.model, 40, 20, 11);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const Healed healed = heal(c.model, c.weights, c.cut({2}), Repair::Refit, fit, judge, events);
  ASSERT_EQ(healed.gaps.size(), 1u);
  const HealedGap& gap = healed.gaps[0];
  ASSERT_GT(gap.alpha, 0);
  const Moments m = moments_of(c, fit, {2}, 1, 2, {}), held = moments_of(c, c.windows, {2}, 1, 2, {});
  const at::Tensor delta = at::linalg_solve(ridged(m.a, gap.ridge), m.r.t()).t(), want = m.w + delta * gap.alpha;
  EXPECT_LE((healed.weights.at("block.1.ffn.down").to(at::kDouble) - want).abs().max().item<double>(), 1e-4 * want.abs().max().item<double>());
  const double explained = (2 * (delta * held.r).sum() - (at::mm(delta, held.a) * delta).sum()).item<double>() / held.size;
  EXPECT_NEAR(gap.explained, explained, 1e-4);
}

// The feed-forward part of block 3 stands behind the gap: its own regression, on inputs that the healed block 1 and attention give.
TEST(Heal, PartsBehindAGapAreSolvedForWhatIsStillMissing) {
  Case c(4);
  const at::NoGradGuard no_grad;
  SilentEvents events;
  const at::Tensor fit = random_windows(c.model, 60, 20, 11);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const Healed healed = heal(c.model, c.weights, c.cut({2}), Repair::Refit, fit, judge, events);
  ASSERT_TRUE(healed.weights.contains("block.3.ffn.down"));
  ASSERT_GE(healed.followers, 1);
  std::map<std::string, at::Tensor> before = healed.weights;
  before.erase("block.3.ffn.down");
  const Moments m = moments_of(c, fit, {2}, 3, 3, before);
  double least = 1e300;                                        // one of the ridges that are tried gives it
  for (const double ridge : {1e-3, 1e-2, 1e-1, 1.0}) {
    const at::Tensor want = m.w + at::linalg_solve(ridged(m.a, ridge), m.r.t()).t();
    least = std::min(least, (healed.weights.at("block.3.ffn.down").to(at::kDouble) - want).abs().max().item<double>() / want.abs().max().item<double>());
  }
  EXPECT_LE(least, 1e-4);
}

// W' = T W with T the ridge regression of what is missing on the part's own output, folded in.
TEST(Heal, LinearIsAMapOfThePartsOutput) {
  Case c(4);
  const at::NoGradGuard no_grad;
  SilentEvents events;
  const at::Tensor fit = random_windows(c.model, 40, 20, 11);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const Healed healed = heal(c.model, c.weights, c.cut({2}), Repair::Linear, fit, judge, events);
  const HealedGap& gap = healed.gaps.at(0);
  ASSERT_GT(gap.alpha, 0);
  ASSERT_EQ(healed.weights.size(), 1u);
  const Moments m = moments_of(c, fit, {2}, 1, 2, {});
  const at::Tensor out = at::mm(at::mm(m.w, m.a), m.w.t()), r = at::mm(m.r, m.w.t());
  const at::Tensor t = at::eye(16, at::kDouble) + at::linalg_solve(ridged(out, gap.ridge), r.t()).t() * gap.alpha, want = at::mm(t, m.w);
  EXPECT_LE((healed.weights.at("block.1.ffn.down").to(at::kDouble) - want).abs().max().item<double>(), 1e-4 * want.abs().max().item<double>());
}

// V + alpha (V_2 + V_3 - 2 V), tensor by tensor; blocks that are small copies of one another make it help.
TEST(Heal, MergeAddsTheDifferencesOfTheRemovedBlocks) {
  Case c(5, 0.1);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const auto of = [&](std::int64_t block, const std::string& rest) -> at::Tensor& { return c.weights.all().at("block." + std::to_string(block) + rest); };
  for (const std::string rest : {".attn.q", ".attn.k", ".attn.v", ".attn.o", ".ffn.gate", ".ffn.up", ".ffn.down"}) {
    of(2, rest) = of(1, rest).clone(), of(3, rest) = of(1, rest).clone();
  }
  of(2, ".attn.o") = of(1, ".attn.o") * 1.5, of(2, ".ffn.down") = of(1, ".ffn.down") * 1.5;
  of(3, ".attn.o") = of(1, ".attn.o") * 1.5, of(3, ".ffn.down") = of(1, ".ffn.down") * 1.5;
  const Judge whole(c.arch, c.weights, c.windows, 1);
  const Healed healed = heal(c.model, c.weights, c.cut({2, 3}), Repair::Merge, c.windows, whole, events);
  const double alpha = healed.gaps.at(0).alpha;
  ASSERT_GT(alpha, 0);
  const at::Tensor want = of(1, ".ffn.down") * (1 + alpha * (0.5 + 0.5));
  EXPECT_LE((healed.weights.at("block.1.ffn.down") - want).abs().max().item<double>(), 1e-6);
  const at::Tensor norm = of(1, ".ffn.norm"), merged = norm + alpha * (of(2, ".ffn.norm") + of(3, ".ffn.norm") - 2 * norm);
  EXPECT_LE((healed.weights.at("block.1.ffn.norm") - merged).abs().max().item<double>(), 1e-6);
}

TEST(Heal, LowersTheKlOfHeldOutTextAndLeavesTheWholeModelAlone) {
  Case c(6);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const at::Tensor before = c.weights.tensor("block.1.ffn.down").clone();
  const double cut = judge.of(c.without({2, 4}, judge)).kl;
  std::map<Repair, double> after;
  for (const Repair repair : {Repair::Linear, Repair::Refit}) {
    const Healed healed = heal(c.model, c.weights, c.cut({2, 4}), repair, random_windows(c.model, 60, 20, 11), judge, events);
    EXPECT_TRUE(at::equal(c.weights.tensor("block.1.ffn.down"), before));
    Case changed = c;
    for (const auto& [name, w] : healed.weights) changed.weights.all()[name] = w;
    after[repair] = judge.of(changed.without({2, 4}, judge)).kl;
    if (repair == Repair::Linear) {
      EXPECT_NEAR(after[repair], healed.gaps[1].kl, 1e-9);
    }
    EXPECT_LT(healed.gaps[0].kl, cut);
  }
  EXPECT_LT(after[Repair::Linear], cut);
  EXPECT_LT(after[Repair::Refit], after[Repair::Linear]);
  EXPECT_LT(after[Repair::Refit], 0.7 * cut);
}

// Of the attention of block 2 alone: the feed-forward part before it takes it up.
TEST(Heal, PartsAreHealedToo) {
  Case c(4);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const engine::Arch cut = without(c.arch, Unit{2, Part::Attention});
  const Healed healed = heal(c.model, c.weights, cut, Repair::Refit, random_windows(c.model, 60, 20, 11), judge, events);
  ASSERT_EQ(healed.gaps.size(), 1u);
  EXPECT_EQ(healed.gaps[0].gap.before, (Unit{1, Part::FeedForward}));
  const double before = judge.of(c.behind(cut, judge)).kl;
  for (const auto& [name, w] : healed.weights) c.weights.all()[name] = w;
  EXPECT_LT(judge.of(c.behind(cut, judge)).kl, 0.9 * before);
}

TEST(Heal, NothingStandsBeforeTheFirstBlock) {
  Case c(3);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const Healed healed = heal(c.model, c.weights, c.cut({0}), Repair::Linear, c.windows, judge, events);
  EXPECT_TRUE(healed.weights.empty());
  EXPECT_EQ(healed.gaps[0].alpha, 0);
  EXPECT_NEAR(healed.gaps[0].kl, judge.of(c.without({0}, judge)).kl, 1e-9);
}

TEST(Heal, SameBytesForOneTwoAndThreeThreads) {
  Case c(4);
  SilentEvents events;
  std::map<std::string, at::Tensor> first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const Judge judge(c.arch, c.weights, c.windows, 1);
    const auto now = heal(c.model, c.weights, c.cut({2}), Repair::Refit, random_windows(c.model, 20, 20, 11), judge, events).weights;
    if (first.empty()) first = now;
    ASSERT_EQ(first.size(), now.size());
    for (const auto& [name, w] : now) EXPECT_TRUE(at::equal(first.at(name), w)) << name << " with " << threads << " threads";
  }
  at::set_num_threads(1);
}

// Parameters left when only the first blocks stay, as `drop --list` leaves them, from shapes alone.
std::int64_t parameters_of_first(const ir::Model& model, std::int64_t kept) {
  ir::Plan plan(model);
  for (std::int64_t i = 0; i < kept; ++i) plan.take["block"].push_back(i);
  return ir::cost(ir::apply(plan, model)).parameters;
}

// "Why lift so heavy?" [Yuan et al. 2024, arXiv:2402.11700]: GPT-2 XL from 1.6 billion parameters to 112 million.
TEST(Cut, ParametersOfGpt2XlAreThePapers) {
  const ir::Model model = ir::shape_only({{"architectures", {"GPT2LMHeadModel"}}, {"model_type", "gpt2"}, {"activation_function", "gelu_new"},
                                          {"n_embd", 1600}, {"n_head", 25}, {"n_layer", 48}, {"n_positions", 1024}, {"n_ctx", 1024},
                                          {"vocab_size", 50257}, {"layer_norm_epsilon", 1e-5}, {"torch_dtype", "float32"}});
  EXPECT_EQ(parameters_of_first(model, 48), 1557611200);
  EXPECT_EQ(parameters_of_first(model, 2), 143534400);
  EXPECT_EQ(parameters_of_first(model, 1), 112793600);
  EXPECT_EQ(parameters_of(model, {7, Part::Block}), 12 * 1600 * 1600 + 13 * 1600);
}

// And OPT-1.3B to 157 million.
TEST(Cut, ParametersOfOptAreThePapers) {
  const ir::Model model = ir::shape_only({{"architectures", {"OPTForCausalLM"}}, {"model_type", "opt"}, {"activation_function", "relu"},
                                          {"hidden_size", 2048}, {"word_embed_proj_dim", 2048}, {"ffn_dim", 8192}, {"num_attention_heads", 32},
                                          {"num_hidden_layers", 24}, {"max_position_embeddings", 2048}, {"vocab_size", 50272},
                                          {"do_layer_norm_before", true}, {"torch_dtype", "float16"}});
  EXPECT_EQ(parameters_of_first(model, 24), 1315758080);
  EXPECT_EQ(parameters_of_first(model, 1), 157517824);
}

TEST(Cut, ParametersOfSmolLm2ByNumberOfBlocks) {
  const ir::Model model = ir::shape_only({{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}, {"hidden_act", "silu"}, {"hidden_size", 576},
                                          {"intermediate_size", 1536}, {"num_hidden_layers", 30}, {"num_attention_heads", 9},
                                          {"num_key_value_heads", 3}, {"vocab_size", 49152}, {"max_position_embeddings", 8192},
                                          {"rms_norm_eps", 1e-5}, {"tie_word_embeddings", true}, {"rope_theta", 100000.0}, {"torch_dtype", "bfloat16"}});
  for (const auto& [kept, parameters] : std::map<std::int64_t, std::int64_t>{{30, 134515008}, {27, 123894720}, {24, 113274432}, {21, 102654144}}) {
    EXPECT_EQ(parameters_of_first(model, kept), parameters);
  }
  EXPECT_EQ(parameters_of(model, {0, Part::Attention}), 884736 + 576);
  EXPECT_EQ(parameters_of(model, {0, Part::FeedForward}), 2654208 + 576);
}

}  // namespace
}  // namespace slmc::pruning
