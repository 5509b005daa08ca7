#pragma once
// A norm over fewer channels divides by another number. When channels K of the stream stay, its gain becomes c gain_K with
//   c = (mean over K of E[x_k²] / mean over all of E[x_k²])^1/2
// so that on average the kept channels leave the norm as they did: exactly where each token's share of energy in K is the same.
// Only for RMS norms; the mean that a layer norm subtracts moves too, and stays as it is.
#include <map>
#include <string>

#include "engine/statistics.h"
#include "ir/plan.h"

namespace slmc::pruning {

// For a plan that takes `hidden`: the gains [|K|] of all norms over the stream, by name. Empty for layer norms. Needs MeanSquare at the
// stream's sites (measure.h).
std::map<std::string, io::TensorData> corrected_norms(const ir::Model& model, const ir::Plan& plan, const engine::Statistics& statistics);

}  // namespace slmc::pruning
