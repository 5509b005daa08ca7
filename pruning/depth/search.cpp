#include "pruning/depth/search.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/stream.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kFullScan = 3;          // every so many rounds all blocks are tried

std::vector<std::int64_t> rising(const std::vector<double>& values) {
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return values[a] < values[b]; });
  return order;
}

class GreedyRound {
 public:
  GreedyRound(const Judge& judge, const engine::Arch& arch, engine::Weights& weights, const std::set<std::int64_t>& removed)
      : judge_(judge), arch_(arch), weights_(weights), removed_(removed), blocks_(static_cast<std::int64_t>(arch.sizes.blocks.size())) {}

  // Tries every candidate; notes how much each remaining block turns the stream of the model as it is now.
  Removal run(const std::set<std::int64_t>& candidates, std::vector<double>& influence) {
    Removal best{-1, std::numeric_limits<double>::infinity()};
    at::Tensor x = judge_.start().clone();
    for (std::int64_t i = 0; i < blocks_; ++i) {
      if (removed_.contains(i)) continue;
      cancel_point("nothing was written");
      if (candidates.contains(i)) {
        const double kl = without(i, x);
        if (kl < best.score) best = {i, kl};
      }
      const at::Tensor before = x.clone();
      engine::run_windows(arch_, weights_, x, i, i + 1);
      influence[static_cast<std::size_t>(i)] = influence_of(before, x, i);
    }
    return best;
  }

 private:
  double without(std::int64_t block, const at::Tensor& prefix) const {
    at::Tensor x = prefix.clone();
    for (std::int64_t i = block + 1; i < blocks_; ++i) {
      if (!removed_.contains(i)) engine::run_windows(arch_, weights_, x, i, i + 1);
    }
    return judge_.of(x).kl;
  }

  const Judge& judge_;
  const engine::Arch& arch_;
  engine::Weights& weights_;
  const std::set<std::int64_t>& removed_;
  std::int64_t blocks_;
};

}  // namespace

std::vector<Removal> by_block_influence(const std::vector<double>& influence, std::int64_t count) {
  std::vector<Removal> out;
  for (const std::int64_t block : rising(influence)) {
    if (static_cast<std::int64_t>(out.size()) < count) out.push_back({block, influence[static_cast<std::size_t>(block)]});
  }
  return out;
}

std::vector<Removal> by_greedy_kl(const Judge& judge, const engine::Arch& arch, engine::Weights& weights, std::int64_t count,
                                  std::int64_t shortlist, stage::Events& events) {
  std::vector<double> influence = judge.influence();
  std::vector<Removal> out;
  std::set<std::int64_t> removed;
  for (std::int64_t round = 0; round < count; ++round) {
    const bool all = round % kFullScan == kFullScan - 1;
    std::set<std::int64_t> candidates;
    for (const std::int64_t block : rising(influence)) {
      const bool room = all || static_cast<std::int64_t>(candidates.size()) < shortlist;
      if (room && !removed.contains(block)) candidates.insert(block);
    }
    const Removal best = GreedyRound(judge, arch, weights, removed).run(candidates, influence);
    SLMC_CHECK(best.block >= 0);
    removed.insert(best.block);
    out.push_back(best);
    events.progress("blocks chosen", round + 1, count);
  }
  return out;
}

}  // namespace slmc::pruning
