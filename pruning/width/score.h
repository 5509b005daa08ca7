#pragma once
// Scores of every structure that is cut, block by block: one block's weights in memory at a time.
#include "pruning/width/decide.h"
#include "pruning/width/gradients.h"
#include "pruning/width/measure.h"

namespace slmc::pruning {

// `gradients`: empty unless the criterion wants them. `seed` is of the random criterion. Error(Recipe) when the criterion has no formula for
// an axis that `widths` narrows.
Scores scores_of(const ir::Model& model, const engine::Statistics& statistics, const GradientScores& gradients, const Criterion& criterion,
                 Aggregate aggregate, const Widths& widths, std::uint64_t seed);

// Error(Recipe) as above, before anything is measured.
void require_formulas(const Criterion& criterion, const ir::Sizes& sizes, const Widths& widths);

}  // namespace slmc::pruning
