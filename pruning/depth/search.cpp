#include "pruning/depth/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kFullScan = 3;          // every so many rounds all units are tried
constexpr int kSweeps = 5;

std::vector<std::size_t> rising(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  return order;
}

// The units that are left, those that turn the stream least per size first.
std::vector<Unit> by_influence(const Trials& trials, const Goal* goal) {
  std::vector<Unit> left;
  std::vector<double> values;
  for (const Unit& unit : trials.units()) {
    if (!is_there(trials.settled(), unit)) continue;
    left.push_back(unit);
    values.push_back(trials.influence(unit) / (goal ? goal->size(unit) : 1));
  }
  std::vector<Unit> out;
  for (const std::size_t i : rising(values)) out.push_back(left[i]);
  return out;
}

// The candidate that costs least; of equals the first by block.
struct Best {
  Unit unit{-1};
  Score score;
};

Best best_of(const Trials& trials, const std::vector<Unit>& candidates, const Goal* goal) {
  Best best;
  for (const Unit& unit : candidates) {
    const Score* incumbent = best.unit.block < 0 ? nullptr : &best.score;
    const std::optional<Score> score = trials.of(without(trials.settled(), unit), incumbent, goal ? goal->size(unit) : 1);
    if (!score) continue;
    const bool less = !incumbent || score->increase() < best.score.increase();
    if (less || (score->increase() == best.score.increase() && unit < best.unit)) best = {unit, *score};
  }
  SLMC_CHECK(best.unit.block >= 0);
  return best;
}

engine::Arch cut_of(const engine::Arch& whole, const std::vector<Removal>& removed) {
  engine::Arch cut = whole;
  for (const Removal& r : removed) cut = without(std::move(cut), r.unit);
  return cut;
}

}  // namespace

Goal::Goal(const ir::Model& model, const std::string& kind, std::int64_t count) : count_(count) {
  if (kind != "any") return;
  for (const Unit& unit : units_of(model.sizes(), kind)) {
    sizes_[unit] = static_cast<double>(parameters_of(model, unit)) / 1e6;
    total_ += sizes_[unit] / static_cast<double>(model.blocks());
  }
  total_ *= static_cast<double>(count) * (1 - 1e-12);
}

bool Goal::met(const std::vector<Removal>& removed) const {
  if (sizes_.empty()) return static_cast<std::int64_t>(removed.size()) >= count_;
  double sum = 0;
  for (const Removal& r : removed) sum += sizes_.at(r.unit);
  return sum >= total_;
}

double Goal::size(const Unit& unit) const { return sizes_.empty() ? 1 : sizes_.at(unit); }

std::vector<Removal> lowest(const std::vector<Unit>& units, const std::vector<double>& scores, const Goal& goal) {
  std::vector<double> per_size = scores;
  for (std::size_t i = 0; i < units.size(); ++i) per_size[i] /= goal.size(units[i]);
  std::vector<Removal> out;
  for (const std::size_t i : rising(per_size)) {
    if (!goal.met(out)) out.push_back({units[i], scores[i]});
  }
  return out;
}

std::vector<Removal> least_run(const std::vector<double>& distances, std::int64_t count) {
  const std::size_t first = rising(distances).front();
  std::vector<Removal> out;
  for (std::int64_t i = 0; i < count; ++i) out.push_back({{static_cast<std::int64_t>(first) + i, Part::Block}, distances[first]});
  return out;
}

std::vector<std::vector<double>> costs_alone(Trials& trials, stage::Events& events) {
  std::vector<std::vector<double>> out;
  for (const Unit& unit : trials.units()) {
    out.push_back(trials.of(without(trials.settled(), unit))->windows);
    events.progress("candidates tried", static_cast<std::int64_t>(out.size()), static_cast<std::int64_t>(trials.units().size()));
  }
  return out;
}

std::vector<Removal> greedy(Trials& trials, const Goal& goal, std::int64_t shortlist, stage::Events& events) {
  std::vector<Removal> out;
  for (std::int64_t round = 0; !goal.met(out); ++round) {
    std::vector<Unit> candidates = by_influence(trials, &goal);
    const bool all = round % kFullScan == kFullScan - 1;
    if (!all && static_cast<std::int64_t>(candidates.size()) > shortlist) candidates.resize(static_cast<std::size_t>(shortlist));
    const Unit gone = best_of(trials, candidates, &goal).unit;
    trials.settle(without(trials.settled(), gone));
    out.push_back({gone, trials.value()});
    events.progress("units chosen", round + 1, std::max(round + 1, goal.count()));
  }
  return out;
}

std::vector<Removal> refine(Trials& trials, const engine::Arch& whole, std::vector<Removal> removed, std::int64_t shortlist, stage::Events& events) {
  std::int64_t swaps = 0;
  std::size_t unchanged = 0;                     // units in a row that stayed away
  for (std::size_t at = 0; unchanged < removed.size() && at < kSweeps * removed.size(); ++at) {
    Removal& gone = removed[at % removed.size()];
    std::vector<Removal> others = removed;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(at % removed.size()));
    trials.settle(cut_of(whole, others));
    std::vector<Unit> candidates = {gone.unit};
    for (const Unit& unit : by_influence(trials, nullptr)) {
      if (static_cast<std::int64_t>(candidates.size()) > shortlist) break;
      if (unit.part == gone.unit.part && unit != gone.unit) candidates.push_back(unit);
    }
    const Unit best = best_of(trials, candidates, nullptr).unit;
    unchanged = best == gone.unit ? unchanged + 1 : 0;
    if (best == gone.unit) continue;
    events.note(fmt::format("{} goes instead of {}", to_string(best), to_string(gone.unit)));
    gone.unit = best;
    ++swaps;
  }
  trials.settle(cut_of(whole, removed));
  if (swaps) removed.back().score = trials.value();
  events.note(fmt::format("{} swap{} helped", swaps, swaps == 1 ? "" : "s"));
  return removed;
}

}  // namespace slmc::pruning
