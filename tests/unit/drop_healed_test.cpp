// Cuts judged behind a quick repair: against least squares of fp64 taps and a full forward in fp64, which share no code with the trials.
#include <ATen/Parallel.h>
#include <ATen/ops/linalg_solve.h>
#include <gtest/gtest.h>

#include "core/cancel.h"
#include "core/error.h"
#include "depth_testing.h"
#include "pruning/depth/heal.h"

namespace slmc::pruning {
namespace {

using testing_methods::SilentEvents;
using namespace testing_depth;

using Tensors = std::map<std::string, at::Tensor>;
using Numbers = std::vector<std::int64_t>;                       // of removed blocks, ascending

struct HealedCase : Case {
  at::Tensor fit = random_windows(model, 40, 20, 11);
  explicit HealedCase(std::int64_t blocks) : Case(blocks) {}

  Trials trials(const Judge& judge, const std::string& kind = "layer") const { return {judge, arch, weights, Measure::Kl, units_of(model.sizes(), kind), fit}; }

  // `done` and what the gap around each of `gaps` needs in the cut, front to back: of four ridges the one that explains most of the judge's windows.
  Tensors repaired(const Numbers& removed, const Numbers& gaps, Tensors done) {
    const auto gone = [&](std::int64_t i) { return std::find(removed.begin(), removed.end(), i) != removed.end(); };
    for (const std::int64_t gap : gaps) {
      std::int64_t before = gap - 1, last = gap;
      while (before >= 0 && gone(before)) --before;
      while (gone(last + 1)) ++last;
      if (before < 0) continue;
      const std::string name = "block." + std::to_string(before) + ".ffn.down";
      done.erase(name);
      const Moments m = moments_of(*this, fit, removed, before, last, done), held = moments_of(*this, windows, removed, before, last, done);
      double most = 0;
      for (const double ridge : {1e-3, 1e-2, 1e-1, 1.0}) {
        const at::Tensor delta = at::linalg_solve(ridged(m.a, ridge), m.r.t()).t();
        const double explained = (2 * (delta * held.r).sum() - (at::mm(delta, held.a) * delta).sum()).item<double>() / held.size;
        if (explained > most) most = explained, done[name] = m.w + delta;
      }
    }
    return done;
  }
  Tensors repaired(const Numbers& removed) { return repaired(removed, removed, {}); }

  // Mean KL at all positions but the last, in fp64.
  double kl(const Numbers& removed, const Tensors& changed) {
    const at::NoGradGuard no_grad;
    engine::PlainWeights whole(model, at::kDouble, at::kCPU), other = whole;
    for (const auto& [name, w] : changed) other.all()[name] = w;
    const auto log_probs = [&](const engine::Arch& shape, engine::PlainWeights& named) {
      const at::Tensor x = engine::run_blocks(shape, named, engine::embed(shape, named, windows), 0, model.blocks());
      return engine::logits(shape, named, engine::final_norm(shape, named, x)).log_softmax(-1);
    };
    const at::Tensor p = log_probs(arch, whole), q = log_probs(cut(removed), other);
    return (p.exp() * (p - q)).sum(-1).narrow(1, 0, p.size(1) - 1).mean().item<double>();
  }
};

TEST(HealedTrials, SettledCutsCostWhatTheDefinitionSays) {
  HealedCase c(6);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  Trials trials = c.trials(judge);
  EXPECT_NEAR(trials.value(), 0, 1e-9);
  for (const Numbers& removed : {Numbers{2}, {0, 3}, {1, 2}, {2, 4}, {3, 5}, {1, 3, 4}}) {       // in this order: from one cut to the next
    trials.settle(c.cut(removed));
    const double want = c.kl(removed, c.repaired(removed));
    EXPECT_NEAR(trials.value(), want, 1e-4 * want);
    if (removed[0] > 0) {
      EXPECT_LT(want, 0.95 * c.kl(removed, {}));                                                  // the repair is one
    }
  }
}

// Candidates are repaired where they differ from the settled cut; a gap that both have keeps its repair.
TEST(HealedTrials, CandidatesCostWhatTheDefinitionSays) {
  HealedCase c(6);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  Trials trials = c.trials(judge);
  for (std::int64_t i = 0; i < 6; ++i) {
    const double want = c.kl({i}, c.repaired({i}));
    EXPECT_NEAR(trials.of(c.cut({i}))->increase(), want, 1e-4 * want) << i;
  }
  trials.settle(c.cut({3}));
  const Tensors settled = c.repaired({3});
  for (const std::int64_t i : {0, 1, 2, 4, 5}) {
    const Numbers both = {std::min<std::int64_t>(3, i), std::max<std::int64_t>(3, i)};
    Tensors stays = settled;
    if (i == 2) stays.clear();                                                                   // another part stands before the gap now
    const double want = c.kl(both, c.repaired(both, {i}, stays));
    EXPECT_NEAR(trials.of(c.cut(both))->increase() + trials.value(), want, 1e-4 * want) << i;
  }
  const double other = c.kl({1}, c.repaired({1}));                                               // the settled gap is no more
  EXPECT_NEAR(trials.of(c.cut({1}))->increase() + trials.value(), other, 1e-4 * other);
}

// Each round by trying everything by the definition.
TEST(HealedTrials, GreedyTakesTheBestOfAllRepairedInEachRound) {
  HealedCase c(6);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  Trials trials = c.trials(judge);
  const std::vector<Removal> got = greedy(trials, Goal(c.model, "layer", 3), 100, events);
  Numbers removed;
  Tensors settled;
  for (const Removal& r : got) {
    double best = 1e300;
    std::int64_t at = -1;
    for (std::int64_t i = 0; i < 6; ++i) {
      if (std::find(removed.begin(), removed.end(), i) != removed.end()) continue;
      Numbers tried = removed;
      tried.insert(std::upper_bound(tried.begin(), tried.end(), i), i);
      Tensors stays = settled;                                     // of a gap that the candidate lengthens to the front, nothing
      for (std::int64_t k = i; std::find(tried.begin(), tried.end(), k) != tried.end(); --k) stays.erase("block." + std::to_string(k) + ".ffn.down");
      const double now = c.kl(tried, c.repaired(tried, {i}, stays));
      if (now < best) best = now, at = i;
    }
    EXPECT_EQ(r.unit.block, at);
    removed.insert(std::upper_bound(removed.begin(), removed.end(), at), at);
    settled = c.repaired(removed);
    const double want = c.kl(removed, settled);
    EXPECT_NEAR(r.score, want, 1e-4 * want);
  }
  EXPECT_EQ(removed.size(), 3u);
}

// Swaps from every pair end where no other pair that shares a block costs less, all pairs healed and judged.
TEST(HealedTrials, RefineEndsWhereNoSwapHelps) {
  HealedCase c(5);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  std::map<std::vector<Unit>, double> cost;
  for (std::int64_t a = 0; a < 5; ++a) {
    for (std::int64_t b = a + 1; b < 5; ++b) cost[blocks({a, b})] = c.kl({a, b}, c.repaired({a, b}));
  }
  const auto worst = std::max_element(cost.begin(), cost.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  Trials trials = c.trials(judge);
  const std::vector<Unit> got = units_in(refine(trials, c.arch, {{worst->first[0]}, {worst->first[1]}}, 100, events));
  ASSERT_TRUE(cost.contains(got));
  EXPECT_NEAR(trials.value(), cost[got], 1e-4 * cost[got]);
  EXPECT_EQ(got, std::min_element(cost.begin(), cost.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first);
}

// One gap, refitted alone: what heal() finds with the judge's windows, where its strength is 1 and nothing stands behind the gap.
TEST(HealedTrials, OneGapIsHealedAsHealDoes) {
  HealedCase c(4);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  const Healed healed = heal(c.model, c.weights, c.cut({3}), Repair::Refit, c.fit, judge, events);
  ASSERT_EQ(healed.gaps.at(0).alpha, 1);
  ASSERT_EQ(healed.followers, 0);
  Trials trials = c.trials(judge);
  trials.settle(c.cut({3}));
  EXPECT_NEAR(trials.value(), healed.gaps[0].kl, 1e-9);
}

TEST(HealedTrials, PartsOfBlocksAreRepairedToo) {
  HealedCase c(4);
  SilentEvents events;
  const Judge judge(c.arch, c.weights, c.windows, 1);
  Trials healed = c.trials(judge, "any"), plain(judge, c.arch, c.weights, Measure::Kl, units_of(c.model.sizes(), "any"));
  for (const Unit& unit : {Unit{1, Part::Attention}, {2, Part::FeedForward}}) {
    const double before = plain.of(without(c.arch, unit))->increase();
    EXPECT_LT(healed.of(without(c.arch, unit))->increase(), 0.95 * before) << to_string(unit);
  }
  EXPECT_EQ(greedy(healed, Goal(c.model, "any", 1), 4, events).size(), 2u);
}

TEST(HealedTrials, SameAnswersForOneTwoAndThreeThreads) {
  HealedCase c(6);
  SilentEvents events;
  std::vector<double> first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const Judge judge(c.arch, c.weights, c.windows, 2);
    Trials trials = c.trials(judge);
    const std::vector<Removal> removed = greedy(trials, Goal(c.model, "layer", 2), 4, events);
    std::vector<double> now = {static_cast<double>(trials.tried()), static_cast<double>(trials.given_up())};
    for (const std::vector<Removal>& list : {removed, refine(trials, c.arch, removed, 4, events)}) {
      for (const Removal& r : list) now.push_back(static_cast<double>(r.unit.block)), now.push_back(r.score);
    }
    if (first.empty()) first = now;
    EXPECT_EQ(first, now) << threads << " threads";
  }
  at::set_num_threads(1);
}

TEST(HealedTrials, StopWhenAsked) {
  HealedCase c(4);
  const Judge judge(c.arch, c.weights, c.windows, 1);
  Trials trials = c.trials(judge);
  request_cancel(2);
  try {
    trials.of(c.cut({2}));
    ADD_FAILURE() << "went on";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Interrupted);
  }
  clear_cancel();
  EXPECT_TRUE(trials.of(c.cut({2})));
}

}  // namespace
}  // namespace slmc::pruning
