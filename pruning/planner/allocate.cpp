#include "pruning/planner/allocate.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace slmc::pruning {
namespace {

constexpr std::size_t kMostStates = 2'000'000;

struct State {
  std::int64_t cost = 0;
  double loss = 0;
  std::uint32_t before = 0;        // place among the states of the block before
  std::uint32_t option = 0;
};

std::int64_t cheapest(const std::vector<Option>& options) {
  return std::min_element(options.begin(), options.end(), [](const Option& a, const Option& b) { return a.cost < b.cost; })->cost;
}

// By rising cost; each has less loss than all cheaper ones.
std::vector<State> undominated(std::vector<State> all) {
  std::sort(all.begin(), all.end(), [](const State& a, const State& b) {
    if (a.cost != b.cost) return a.cost < b.cost;
    if (a.loss != b.loss) return a.loss < b.loss;
    return a.option != b.option ? a.option < b.option : a.before < b.before;
  });
  double least = std::numeric_limits<double>::infinity();
  std::erase_if(all, [&](const State& s) {
    if (s.loss >= least) return true;
    least = s.loss;
    return false;
  });
  return all;
}

}  // namespace

std::optional<std::vector<std::size_t>> allocate(const std::vector<std::vector<Option>>& blocks, std::int64_t most) {
  std::int64_t rest = 0;                               // the least that the blocks still to come cost
  for (const std::vector<Option>& options : blocks) rest += cheapest(options);
  std::vector<std::vector<State>> states = {{State{}}};
  for (const std::vector<Option>& options : blocks) {
    rest -= cheapest(options);
    std::vector<State> next;
    for (std::size_t s = 0; s < states.back().size(); ++s) {
      for (std::size_t o = 0; o < options.size(); ++o) {
        const State& from = states.back()[s];
        const std::int64_t cost = from.cost + options[o].cost;
        if (cost + rest > most) continue;
        next.push_back({cost, from.loss + options[o].loss, static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(o)});
      }
    }
    next = undominated(std::move(next));
    if (next.empty()) return std::nullopt;
    if (next.size() > kMostStates) throw Error(ErrorKind::Recipe, "the costs of widths must come in steps, but nearly all sums of them differ", "raise align");
    states.push_back(std::move(next));
  }
  std::vector<std::size_t> out(blocks.size());
  std::size_t at = states.back().size() - 1;           // the dearest has the least loss
  for (std::size_t b = blocks.size(); b-- > 0;) {
    const State& s = states[b + 1][at];
    out[b] = s.option, at = s.before;
  }
  return out;
}

}  // namespace slmc::pruning
