#include "pruning/depth/evolve.h"

#include <algorithm>
#include <limits>
#include <set>

#include "core/rng.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kFewWindows = 4;
constexpr std::size_t kFinalists = 2;
constexpr std::uint64_t kMostSwaps = 3;

class Evolving {
 public:
  Evolving(Trials& trials, const engine::Arch& whole, std::uint64_t seed) : trials_(trials), whole_(whole), rng_(derive_seed(seed, "evolve")) {
    for (const Unit& unit : trials.units()) kinds_[unit.part].push_back(unit);
  }

  std::set<Unit> random_cut(std::int64_t per_part) {
    std::set<Unit> out;
    for (const auto& [part, units] : kinds_) {
      std::vector<Unit> left = units;
      for (std::int64_t i = 0; i < per_part; ++i) {
        const std::size_t at = below(left.size());
        out.insert(left[at]);
        left.erase(left.begin() + static_cast<std::ptrdiff_t>(at));
      }
    }
    return out;
  }

  std::set<Unit> child_of(const std::set<Unit>& parent) {
    std::set<Unit> child = parent;
    const std::size_t swaps = 1 + std::min(below(kMostSwaps), below(kMostSwaps));
    for (std::size_t i = 0; i < swaps; ++i) {
      const Unit back = *std::next(child.begin(), static_cast<std::ptrdiff_t>(below(child.size())));
      std::vector<Unit> kept;
      for (const Unit& unit : kinds_.at(back.part)) {
        if (!child.contains(unit)) kept.push_back(unit);
      }
      if (kept.empty()) continue;
      child.insert(kept[below(kept.size())]);
      child.erase(back);
    }
    return child;
  }

  engine::Arch cut(const std::set<Unit>& gone) const { return without(whole_, std::vector<Unit>(gone.begin(), gone.end())); }

  // Those that cost least on a few windows, best first.
  std::vector<std::set<Unit>> best_on_few(const std::vector<std::set<Unit>>& cuts, std::size_t most) const {
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t i = 0; i < cuts.size(); ++i) {
      const std::optional<Score> score = trials_.of(cut(cuts[i]), nullptr, 1, kFewWindows);
      order.emplace_back(score->increase(), i);
    }
    std::sort(order.begin(), order.end());
    std::vector<std::set<Unit>> out;
    for (std::size_t i = 0; i < std::min(most, order.size()); ++i) out.push_back(cuts[order[i].second]);
    return out;
  }

 private:
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(rng_.below(bound, drawn_++)); }

  Trials& trials_;
  const engine::Arch& whole_;
  Rng rng_;
  std::uint64_t drawn_ = 0;
  std::map<Part, std::vector<Unit>> kinds_;
};

}  // namespace

std::vector<Removal> evolve(Trials& trials, const engine::Arch& whole, std::int64_t per_part, const Evolution& how, stage::Events& events) {
  Evolving evolving(trials, whole, how.seed);
  std::vector<std::set<Unit>> cuts;
  for (std::int64_t i = 0; i < how.beginners; ++i) cuts.push_back(evolving.random_cut(per_part));
  std::set<Unit> parent = evolving.best_on_few(cuts, 1).front();
  trials.settle(evolving.cut(parent));
  for (std::int64_t generation = 0; generation < how.generations; ++generation) {
    cuts.clear();
    for (std::int64_t i = 0; i < how.children; ++i) {
      const std::set<Unit> child = evolving.child_of(parent);
      if (child != parent && std::find(cuts.begin(), cuts.end(), child) == cuts.end()) cuts.push_back(child);
    }
    double least = 0;                              // the parent's increase over itself
    std::set<Unit> next = parent;
    for (const std::set<Unit>& finalist : evolving.best_on_few(cuts, kFinalists)) {
      const double increase = trials.of(evolving.cut(finalist))->increase();
      if (increase < least) least = increase, next = finalist;
    }
    if (next != parent) trials.settle(evolving.cut(next));
    parent = next;
    events.progress("generations", generation + 1, how.generations);
  }
  std::vector<Removal> out;
  for (const Unit& unit : parent) out.push_back({unit, trials.value()});
  return out;
}

}  // namespace slmc::pruning
