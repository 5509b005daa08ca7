#pragma once
// From two models to the picture of what is left of the one in the other.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ir/model.h"
#include "report/kept.h"

namespace slmc::cli {

// blocks[i]: the block of `before` that block i of `after` was. which_known: see report::Kept.
report::Kept kept_of(const ir::Sizes& before, const ir::Sizes& after, const std::vector<std::int64_t>& blocks, bool which_known = true);

// What is left of `a` in `b`, by their origins. Nothing when b can't have been cut from a: they have other ancestors, or b holds blocks
// or widths that a does not have. A model without an origin is taken for the ancestor: only reading all of it could tell.
std::optional<report::Kept> kept_between(const ir::Model& a, const ir::Model& b);

}  // namespace slmc::cli
