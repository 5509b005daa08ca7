#include "pruning/depth/trials.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/stream.h"
#include "pruning/depth/refit.h"
#include "pruning/depth/stream_change.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kGroup = 4;                         // windows between two decisions to give up
constexpr double kErrors = 3;                              // standard errors

// Whether a is worse than b beyond doubt, on the windows that a has.
bool clearly_worse(const Score& a, const Score& b) {
  const std::size_t n = a.windows.size();
  double mean = 0, square = 0;
  for (std::size_t i = 0; i < n; ++i) mean += (a.windows[i] - b.windows[i]) / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double d = a.windows[i] - b.windows[i] - mean;
    square += d * d;
  }
  return n > 1 && mean > kErrors * std::sqrt(square / static_cast<double>((n - 1) * n));
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::int64_t blocks_of(const engine::Arch& arch) { return static_cast<std::int64_t>(arch.sizes.blocks.size()); }

// Gaps with a part before them.
std::vector<Gap> gaps_to_repair(const engine::Arch& whole, const engine::Arch& cut) {
  std::vector<Gap> gaps = sites_of(whole.sizes, cut.sizes, false);
  std::erase_if(gaps, [](const Gap& gap) { return gap.before.block < 0; });
  return gaps;
}

bool is_among(const Gap& gap, const std::vector<Gap>& gaps) { return std::find(gaps.begin(), gaps.end(), gap) != gaps.end(); }

}  // namespace

double Score::increase() const { return mean_of(windows); }

Trials::Trials(const Judge& judge, const engine::Arch& arch, const engine::PlainWeights& weights, Measure measure, std::vector<Unit> units,
               const at::Tensor& repairing)
    : judge_(judge), arch_(arch), whole_weights_(weights), measure_(measure), units_(std::move(units)), influence_(units_.size()), settled_(arch),
      settled_weights_(weights) {
  at::Tensor start = judge.start();
  if (repairing.defined()) start = at::cat({start, engine::embed_windows(arch, settled_weights_, repairing, start.device())});
  windows_ = start.size(0);
  streams_ = KeptStreams(start, blocks_of(arch));
  settle(arch);
  if (repairs()) whole_streams_ = streams_;
}

std::vector<double> Trials::values(const at::Tensor& x, std::int64_t first) const {
  std::vector<double> out;
  for (const Distance& d : judge_.each(x, first)) out.push_back(measure_ == Measure::Kl ? d.kl : d.loss);
  return out;
}

double Trials::value() const { return mean_of(settled_values_); }

Trials::Change Trials::change_to(const engine::Arch& cut) const {
  const auto &a = cut.sizes.blocks, &b = settled_.sizes.blocks;
  Change out{.from = std::min(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin(), blocks_of(cut) - 1), .gaps = {}, .weights = settled_weights_};
  if (!repairs()) return out;
  const std::vector<Gap> now = gaps_to_repair(arch_, cut), then = gaps_to_repair(arch_, settled_);
  for (const Gap& gap : then) {
    if (is_among(gap, now)) continue;
    const std::string name = last_linear(gap.before);
    out.weights.all()[name] = whole_weights_.all().at(name);
    out.from = std::min(out.from, gap.before.block);
  }
  for (const Gap& gap : now) {
    if (is_among(gap, then)) continue;
    out.gaps.push_back(gap);
    out.from = std::min(out.from, gap.before.block);
  }
  return out;
}

// What the whole model has where the gap ends, for some of all windows.
at::Tensor Trials::targets(const Gap& gap, engine::PlainWeights& whole, std::int64_t first, std::int64_t count) const {
  KeptStreams::At at = whole_streams_.before(gap.after.block, first, count);
  run_to(arch_, whole, at.x, at.block, gap.after);
  return at.x;
}

// x [windows, seq, hidden] at the input of the block that holds gap.before, left as it is.
void Trials::repair(const Gap& gap, const engine::Arch& cut, engine::PlainWeights& weights, const at::Tensor& x) const {
  engine::PlainWeights whole = whole_weights_;
  const std::string name = last_linear(gap.before);
  const at::Tensor original = whole_weights_.all().at(name);
  weights.all()[name] = original;
  const auto sums = [&](std::int64_t from, std::int64_t to) {
    return missing_sums(cut, weights, gap.before, x.narrow(0, from, to - from),
                        [&](std::int64_t first, std::int64_t count) { return targets(gap, whole, from + first, count); });
  };
  const at::Tensor w = original.to(at::kCPU, at::kDouble);
  const Refit found = refit(w, sums(judge_.windows(), windows_), sums(0, judge_.windows()), false, name);
  if (found.delta.defined()) weights.all()[name] = (w + found.delta).to(original.device(), original.scalar_type());
}

std::optional<Score> Trials::of(const engine::Arch& cut, const Score* best, double size, std::int64_t most) const {
  const std::int64_t n = std::min(most, judge_.windows());
  ++tried_;
  Change change = change_to(cut);
  KeptStreams::At at{{}, change.from};                       // where the repaired streams are; without repairs each group fetches its own
  if (!change.gaps.empty()) at = streams_.before(change.from);
  for (const Gap& gap : change.gaps) {
    engine::run_windows(cut, change.weights, at.x, at.block, gap.before.block);
    at.block = gap.before.block;
    repair(gap, cut, change.weights, at.x);
  }
  Score score;
  for (std::int64_t first = 0; first < n; first += kGroup) {
    cancel_point("nothing was written");
    const std::int64_t count = std::min(kGroup, n - first);
    KeptStreams::At own = at.x.defined() ? KeptStreams::At{at.x.narrow(0, first, count), at.block} : streams_.before(at.block, first, count);
    engine::run_windows(cut, change.weights, own.x, own.block, blocks_of(cut));
    for (const double value : values(own.x, first)) {
      score.windows.push_back((value - settled_values_[score.windows.size()]) / size);
    }
    const bool last = first + kGroup >= n;
    if (!last && best && clearly_worse(score, *best)) {
      ++given_up_;
      return std::nullopt;
    }
  }
  return score;
}

void Trials::settle(const engine::Arch& cut) {
  Change change = change_to(cut);
  settled_ = cut, settled_weights_ = std::move(change.weights);
  auto [x, from] = streams_.before(change.from);
  streams_.forget_behind(from);
  const std::vector<Gap> gaps = repairs() ? gaps_to_repair(arch_, cut) : std::vector<Gap>{};
  for (std::int64_t i = from; i < blocks_of(cut); ++i) {
    cancel_point("nothing was written");
    streams_.pass(i, x);
    for (const Gap& gap : gaps) {
      if (gap.before.block == i) repair(gap, cut, settled_weights_, x);
    }
    std::vector<Unit> own;
    for (const Unit& unit : units_) {
      if (unit.block == i) own.push_back(unit);
    }
    const std::vector<double> turned = means(run_block(cut, settled_weights_, i, own, x));
    for (std::size_t u = 0, k = 0; u < units_.size(); ++u) {
      if (units_[u].block == i) influence_[u] = turned[k++];
    }
  }
  settled_values_ = values(x.narrow(0, 0, judge_.windows()), 0);
}

double Trials::influence(const Unit& unit) const {
  const auto at = std::find(units_.begin(), units_.end(), unit);
  SLMC_CHECK(at != units_.end());
  return influence_[static_cast<std::size_t>(at - units_.begin())];
}

}  // namespace slmc::pruning
