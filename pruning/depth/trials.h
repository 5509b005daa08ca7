#pragma once
// What a cut costs, tried on a few windows: the streams of one cut, the settled one, are kept, so that another cut runs only from the first
// block in which the two differ; and a cut that is clearly worse than the best one so far is given up early.
//
// With windows to repair with, a cut is judged behind a cheap repair: the last linear map before each gap is refitted (heal.h's `refit` at
// strength 1, ridge by the judge's windows), those of the gaps that the settled cut has too stay as they were refitted there.
#include <ATen/core/Tensor.h>

#include <limits>
#include <optional>
#include <vector>

#include "engine/weights.h"
#include "pruning/depth/gap.h"
#include "pruning/depth/judge.h"
#include "pruning/depth/kept_streams.h"
#include "pruning/depth/units.h"

namespace slmc::pruning {

enum class Measure { Kl, Loss };           // KL(whole || cut), or -ln p(next token): the logarithm of perplexity

// What a cut costs more than the settled one, divided by `size`: lower is better, negative when it is better than that one. `windows` are the
// windows that were tried, in order.
struct Score {
  std::vector<double> windows;
  double increase() const;                 // their mean
};

class Trials {
 public:
  static constexpr std::int64_t kAll = std::numeric_limits<std::int64_t>::max();
  // Settles on the whole model. `units` are those whose influence is wanted; `repairing` [n, seq], other windows than the judge's, are what
  // repairs take their sums of; none: cuts are judged as they are. `judge` and `arch` must outlive it; `weights` are the whole model's.
  Trials(const Judge& judge, const engine::Arch& arch, const engine::PlainWeights& weights, Measure measure, std::vector<Unit> units,
         const at::Tensor& repairing = {});

  // Over the first `most` windows. Nothing when the cut was given up: after four windows, eight, ... (whatever the number of threads) its score
  // exceeded that of `best` on the same windows by three standard errors of their differences.
  std::optional<Score> of(const engine::Arch& cut, const Score* best = nullptr, double size = 1, std::int64_t most = kAll) const;

  // Keeps the streams of this cut, and how much each unit turns them. Of repairs, those behind the first change are made anew.
  void settle(const engine::Arch& cut);
  const engine::Arch& settled() const { return settled_; }
  double value() const;                                    // of the settled cut: mean KL or loss
  const std::vector<Unit>& units() const { return units_; }
  double influence(const Unit& unit) const;                // in the settled cut

  std::int64_t tried() const { return tried_; }
  std::int64_t given_up() const { return given_up_; }

 private:
  // What a cut has that the settled one has not: the first block from which they differ, gaps to be repaired in order, and the settled weights
  // without the repairs of gaps that are no more.
  struct Change {
    std::int64_t from = 0;
    std::vector<Gap> gaps;
    engine::PlainWeights weights;
  };
  Change change_to(const engine::Arch& cut) const;
  bool repairs() const { return windows_ > judge_.windows(); }
  at::Tensor targets(const Gap& gap, engine::PlainWeights& whole, std::int64_t first, std::int64_t count) const;
  void repair(const Gap& gap, const engine::Arch& cut, engine::PlainWeights& weights, const at::Tensor& x) const;
  std::vector<double> values(const at::Tensor& x, std::int64_t first) const;

  const Judge& judge_;
  const engine::Arch& arch_;
  const engine::PlainWeights whole_weights_;
  Measure measure_;
  std::vector<Unit> units_;
  std::vector<double> influence_;                          // of units_
  std::int64_t windows_ = 0;                               // the judge's, then those of repairs
  engine::Arch settled_;
  engine::PlainWeights settled_weights_;                   // shares all that was not repaired
  std::vector<double> settled_values_;                     // by window of the judge
  KeptStreams streams_, whole_streams_;                    // of the settled cut; of the whole model, where cuts are repaired
  mutable std::int64_t tried_ = 0, given_up_ = 0;
};

}  // namespace slmc::pruning
