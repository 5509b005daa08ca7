#pragma once
// Repair of all maps that a plan changes: from the statistics alone, or in sequence along both models.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "ir/plan.h"
#include "pruning/width/measure.h"
#include "pruning/width/refit.h"
#include "stage/job.h"

namespace slmc::pruning {

struct Repaired {
  std::map<std::string, io::TensorData> values;      // of the tensors that were changed, as they are stored
  std::vector<RefittedMap> maps;
};

// Adds one map's outcome; `model`: for stored types.
void keep(Repaired& out, const Refitted& refitted, const ir::Model& model);

// Each map that loses inputs, for what it reads in the whole model: no forward pass. `only_bias`: weights stay. Needs E[x xᵀ] and, for maps
// with a bias, E[x] of the maps' inputs (measure.h).
Repaired repair_from_statistics(const ir::Model& model, const ir::Plan& plan, const Measured& measured, bool only_bias, stage::Events& events);

// The whole model and the cut one walk over the same windows side by side, and each map of the cut one is fitted to what it really reads
// (the repaired blocks before it) and to what the whole model has behind the same map: maps that add to the stream are fitted to the whole
// stream, so that they also make up for what the blocks before them left; each token weighted by 1 / |stream|² behind the map, as the next norm
// does (depth/heal.h). Starts from the values that `plan` sets. All maps when hidden width is cut, else attn.o and ffn.down from the first one
// on that lost inputs. windows [n, seq]; in memory: two streams, and the inputs of one map in both.
Repaired repair_in_sequence(const ir::Model& model, const ir::Plan& plan, const at::Tensor& windows, at::Device device, stage::Events& events);

}  // namespace slmc::pruning
