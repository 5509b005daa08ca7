#pragma once
// Where a depth cut leaves gaps in the model: what stands before each, what is gone, what comes next.
#include <vector>

#include "ir/model.h"
#include "pruning/depth/units.h"

namespace slmc::pruning {

struct Gap {
  Unit before;                     // the last kept part, Attention or FeedForward; block -1 when the gap is at the front
  std::vector<Unit> removed;       // parts, in order
  Unit after;                      // the next kept part; block = number of blocks when there is none
  bool whole_blocks() const;       // whole blocks are gone, and the part before them ends a block
  bool operator==(const Gap&) const = default;
};

// In order; with `followers` also, with nothing removed, the kept parts behind the first gap.
std::vector<Gap> sites_of(const ir::Sizes& whole, const ir::Sizes& cut, bool followers);

}  // namespace slmc::pruning
