#pragma once
// What a unit does that nobody else can learn to do in closed form: the ranking for cuts that are healed afterwards (heal.h). A block may turn
// the stream a lot and still be spared, when the part before it can add the same.
#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/decoder.h"
#include "pruning/depth/units.h"

namespace slmc::pruning {

// For each unit, from x to y, and the inputs a of the last linear map before it, weighted by g = 1 / |y|:
//   min over delta of E|g (y - x - delta a)|²      on `held_out`, with delta = R (A + ridge I)⁻¹, A = E[g² a aᵀ], R = E[g² (y - x) aᵀ] of `windows`
// and the best of a few ridges; delta = 0 where none helps and where nothing is before the unit. Both windows [n, seq]; in memory: the streams
// and the inputs of two maps. units: in order. The same for any number of threads. Error(Numeric) on activations that are not finite.
std::vector<double> unexplained(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, const at::Tensor& held_out,
                                const std::vector<Unit>& units);

}  // namespace slmc::pruning
