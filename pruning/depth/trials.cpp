#include "pruning/depth/trials.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/stream.h"
#include "pruning/depth/stream_change.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kGroup = 4;                         // windows between two decisions to give up
constexpr double kErrors = 3;                              // standard errors
constexpr std::int64_t kMostBytes = std::int64_t{384} << 20;   // of kept streams

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

}  // namespace

double Score::increase() const { return mean_of(windows); }

Trials::Trials(const Judge& judge, const engine::Arch& arch, engine::Weights& weights, Measure measure, std::vector<Unit> units)
    : judge_(judge), weights_(weights), measure_(measure), units_(std::move(units)), influence_(units_.size()), settled_(arch) {
  const auto blocks = static_cast<std::int64_t>(arch.sizes.blocks.size());
  const std::int64_t bytes = judge.start().numel() * static_cast<std::int64_t>(sizeof(float));
  spacing_ = std::max<std::int64_t>(1, (bytes * blocks + kMostBytes - 1) / kMostBytes);
  settle(arch);
}

std::int64_t Trials::first_difference(const engine::Arch& cut) const {
  const auto& a = cut.sizes.blocks;
  const auto& b = settled_.sizes.blocks;
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

std::vector<double> Trials::values(const at::Tensor& x, std::int64_t first) const {
  std::vector<double> out;
  for (const Distance& d : judge_.each(x, first)) out.push_back(measure_ == Measure::Kl ? d.kl : d.loss);
  return out;
}

double Trials::value() const { return mean_of(settled_values_); }

std::optional<Score> Trials::of(const engine::Arch& cut, const Score* best, double size, std::int64_t most) const {
  const auto blocks = static_cast<std::int64_t>(cut.sizes.blocks.size());
  const auto state = static_cast<std::size_t>(std::min(first_difference(cut), blocks - 1) / spacing_);
  const std::int64_t n = std::min(most, judge_.windows());
  ++tried_;
  Score score;
  for (std::int64_t first = 0; first < n; first += kGroup) {
    cancel_point("nothing was written");
    at::Tensor x = states_[state].narrow(0, first, std::min(kGroup, n - first)).clone();
    engine::run_windows(cut, weights_, x, static_cast<std::int64_t>(state) * spacing_, blocks);
    for (const double value : values(x, first)) {
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
  const auto blocks = static_cast<std::int64_t>(cut.sizes.blocks.size());
  const std::int64_t from = states_.empty() ? 0 : std::min(first_difference(cut), blocks - 1) / spacing_ * spacing_;
  if (states_.empty()) states_.push_back(judge_.start());
  states_.resize(static_cast<std::size_t>(from / spacing_ + 1));
  settled_ = cut;
  at::Tensor x = states_.back().clone();
  for (std::int64_t i = from; i < blocks; ++i) {
    cancel_point("nothing was written");
    if (i > from && i % spacing_ == 0) states_.push_back(x.clone());
    std::vector<Unit> own;
    for (const Unit& unit : units_) {
      if (unit.block == i) own.push_back(unit);
    }
    const std::vector<double> turned = means(run_block(cut, weights_, i, own, x));
    for (std::size_t u = 0, k = 0; u < units_.size(); ++u) {
      if (units_[u].block == i) influence_[u] = turned[k++];
    }
  }
  settled_values_ = values(x, 0);
}

double Trials::influence(const Unit& unit) const {
  const auto at = std::find(units_.begin(), units_.end(), unit);
  SLMC_CHECK(at != units_.end());
  return influence_[static_cast<std::size_t>(at - units_.begin())];
}

}  // namespace slmc::pruning
