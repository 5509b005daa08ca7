#pragma once
// Whether `prune` would keep the same on other text: scores and plan once more on resampled windows (resample.h), from statistics that were
// kept window by window, without a forward pass.
#include <map>
#include <string>

#include "core/json.h"
#include "pruning/width/measure.h"
#include "pruning/width/narrow.h"

namespace slmc::pruning {

struct Agreement {
  double kept = 0, removed = 0;    // mean over the resamples of the Jaccard index with what the plan keeps, and removes
};

// By axis of `plan.take`: "block.3.ffn", "block.3.kv.0.q", "hidden". `measured` holds the windows' own statistics (Asked::windows); the
// criterion reads no Gram matrices and no gradients (resamples()).
std::map<std::string, Agreement> stability(const ir::Model& model, const Measured& measured, const NarrowSettings& settings, const ir::Plan& plan);

// Whether a criterion's statistics can be had window by window.
bool resamples(const Criterion& criterion);

// {"resamples": 10, "ffn": {"kept", "removed", "least_kept", "least_at"}}: means over the axes of a kind, and the one that agrees least.
Json summary(const std::map<std::string, Agreement>& agreements, std::int64_t resamples);

}  // namespace slmc::pruning
