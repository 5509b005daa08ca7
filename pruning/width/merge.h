#pragma once
// Fewer key/value groups without fewer query heads: neighbouring groups become one, whose key and value projections are the means of theirs
// [GQA, Ainslie et al. 2023, arXiv:2305.13245, sec. 2.1]. Heads that shared nothing now share keys and values, so it wants training after;
// groups that are equal become one without any change.
#include "ir/plan.h"

namespace slmc::pruning {

// Error(Recipe) unless `groups` divides the groups of every block that has more; names the nearest numbers that do.
void require_mergeable(const ir::Sizes& sizes, std::int64_t groups);

// Adds it to a plan for `model` that cuts no groups; whatever else it takes and sets stays. In `take` a merged group is its first one with the
// query heads of all, by repeating that one's; `set` holds the means, and q and o whose heads are in the old order.
void merge_groups(ir::Plan& plan, const ir::Model& model, std::int64_t groups);

}  // namespace slmc::pruning
