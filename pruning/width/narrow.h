#pragma once
// `prune` from model and text to plan: measure (measure.h), score and decide (score.h, decide.h), repair (repair.h, norm_drift.h).
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "pruning/width/decide.h"
#include "pruning/width/refit.h"
#include "stage/job.h"

namespace slmc::pruning {

enum class Repair {
  None,
  Bias,             // biases take the mean of what was removed
  Dense,            // each map for its inputs in the whole model: from cached statistics, no forward pass
  Sequential,       // then each map again for its inputs in the cut model, whose blocks before it are repaired; one more pass over both
};
Repair repair_from(const std::string& name);       // "none", "bias", "dense", "sequential"

struct NarrowSettings {
  Widths widths;
  std::string criterion = "wanda";
  Aggregate aggregate = Aggregate::Sum;       // of the criteria that score tensor by tensor
  Repair repair = Repair::Dense;
  std::optional<std::int64_t> merge;          // key/value groups are merged down to so many (merge.h); widths.kv is then unset
  std::int64_t stability = 0;                 // resamples on which it is decided again (stability.h)
  std::uint64_t seed = 0;                     // of the random criterion
  at::Device device = at::kCPU;
  std::filesystem::path cache;                // of statistics; empty: none
};
bool needs_text(const NarrowSettings& settings);

struct Narrowed {
  ir::Plan plan;                              // take; the repaired maps under `set`; criterion, repair, scores and errors under `why`
  std::vector<RefittedMap> maps;              // of the repair from statistics
  std::vector<RefittedMap> sequence;          // of the walk after it, against the cut model's own inputs
  SharedJson stability;                       // summary() of stability.h; null unless asked for
};

// Error(Recipe) when groups can't be merged, a bias is wanted where the family holds none, or the criterion has no formula for an axis.
void require_possible(const ir::Model& model, const NarrowSettings& settings);

// windows [n, seq] int64, may be undefined when no text is needed. The last eighth of the windows chooses ridges and judges.
// Error(Interrupted) between blocks when asked to stop.
Narrowed narrow(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings, stage::Events& events);

}  // namespace slmc::pruning
