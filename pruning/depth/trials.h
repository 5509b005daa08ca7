#pragma once
// What a cut costs, tried on a few windows: the streams of one cut, the settled one, are kept, so that another cut runs only from the first
// block in which the two differ; and a cut that is clearly worse than the best one so far is given up early.
#include <ATen/core/Tensor.h>

#include <limits>
#include <optional>
#include <vector>

#include "pruning/depth/judge.h"
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
  // Settles on the whole model. `units` are those whose influence is wanted. `judge`, `arch` and `weights` must outlive it.
  Trials(const Judge& judge, const engine::Arch& arch, engine::Weights& weights, Measure measure, std::vector<Unit> units);

  // Over the first `most` windows. Nothing when the cut was given up: after four windows, eight, ... (whatever the number of threads) its score
  // exceeded that of `best` on the same windows by three standard errors of their differences.
  std::optional<Score> of(const engine::Arch& cut, const Score* best = nullptr, double size = 1, std::int64_t most = kAll) const;

  // Keeps the streams of this cut, and how much each unit turns them.
  void settle(const engine::Arch& cut);
  const engine::Arch& settled() const { return settled_; }
  double value() const;                                    // of the settled cut: mean KL or loss
  const std::vector<Unit>& units() const { return units_; }
  double influence(const Unit& unit) const;                // in the settled cut

  std::int64_t tried() const { return tried_; }
  std::int64_t given_up() const { return given_up_; }

 private:
  std::int64_t first_difference(const engine::Arch& cut) const;
  std::vector<double> values(const at::Tensor& x, std::int64_t first) const;

  const Judge& judge_;
  engine::Weights& weights_;
  Measure measure_;
  std::vector<Unit> units_;
  std::vector<double> influence_;                          // of units_
  engine::Arch settled_;
  std::int64_t spacing_ = 1;                               // streams are kept at every so many blocks
  std::vector<double> settled_values_;                     // by window
  std::vector<at::Tensor> states_;                         // at the input of block i * spacing, [n, seq, hidden]
  mutable std::int64_t tried_ = 0, given_up_ = 0;
};

}  // namespace slmc::pruning
