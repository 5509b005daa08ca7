#pragma once
// Which units a model can do without. Every search gives the same answer for any number of threads; of equals the first unit goes.
#include <cstdint>
#include <map>
#include <vector>

#include "pruning/depth/trials.h"
#include "pruning/depth/units.h"
#include "stage/job.h"

namespace slmc::pruning {

struct Removal {
  Unit unit;
  double score = 0;                // as the search ranks: influence, distance, or what the cut costs with this and all earlier ones gone
};

// How much is to go: `count` units; or, where attention and feed-forward parts are mixed, the parameters of `count` average blocks.
class Goal {
 public:
  Goal(const ir::Model& model, const std::string& kind, std::int64_t count);      // kind: see units_of
  bool met(const std::vector<Removal>& removed) const;
  double size(const Unit& unit) const;             // 1, or where parts are mixed millions of parameters: what scores are divided by
  std::int64_t count() const { return count_; }

 private:
  std::int64_t count_ = 0;
  double total_ = 0;
  std::map<Unit, double> sizes_;                   // empty unless parts are mixed
};

// All at once, by rising score per size until the goal is met: `scores` of units. With influences: ShortGPT [Men et al. 2024,
// arXiv:2403.03853].
std::vector<Removal> lowest(const std::vector<Unit>& units, const std::vector<double>& scores, const Goal& goal);

// The run of `count` blocks with the least distance [Gromov et al. 2024, arXiv:2403.17887]; distances: see angular_distances.
std::vector<Removal> least_run(const std::vector<double>& distances, std::int64_t count);

// What each unit costs that alone is taken away from the whole model, by window: `lowest` of their means are the one-shot searches of Kim et
// al. 2024, arXiv:2402.02834.
std::vector<std::vector<double>> costs_alone(Trials& trials, stage::Events& events);

// One unit after the other, the one whose absence (with those before) costs least [SLEB, Song et al. 2024, arXiv:2402.09025; with parts of
// blocks: BlockPruner, Zhong et al. 2024, arXiv:2406.10594]. Candidates of a round are the `shortlist` remaining units that turn the stream
// least at that time; every third round tries all. Leaves the trials settled on the result.
std::vector<Removal> greedy(Trials& trials, const Goal& goal, std::int64_t shortlist, stage::Events& events);

// One removed unit comes back and another one of its kind goes in its place, the best of the `shortlist` that turn the stream least then; over
// and over until no such swap helps, five sweeps at most. Never worse than `removed` on the trials' windows.
std::vector<Removal> refine(Trials& trials, const engine::Arch& whole, std::vector<Removal> removed, std::int64_t shortlist, stage::Events& events);

}  // namespace slmc::pruning
