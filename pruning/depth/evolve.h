#pragma once
// Evolutionary search for a cut [EvoPress, Sieberling et al. 2024, arXiv:2410.14649, Algorithm 1 with level-switch mutation].
//
// One parent. A generation's children swap at most three removed units for kept ones of the same kind; they are tried on a few windows, the
// best two on all of them, and the better of those becomes the parent if it is better than the parent is. Differs from the paper: fewer
// children and less text, sized for a CPU; children of one parent run only behind their first change.
#include <vector>

#include "pruning/depth/search.h"

namespace slmc::pruning {

struct Evolution {
  std::int64_t generations = 30;
  std::int64_t children = 16;
  std::int64_t beginners = 32;             // random cuts, the best of which is the first parent
  std::uint64_t seed = 0;
};

// `per_part`: how many attention and how many feed-forward parts go where the units are parts, how many blocks where they are blocks. The
// same answer for the same seed and any number of threads. Leaves the trials settled on the result; scores are its value.
std::vector<Removal> evolve(Trials& trials, const engine::Arch& whole, std::int64_t per_part, const Evolution& how, stage::Events& events);

}  // namespace slmc::pruning
