#pragma once
// What narrowing one block alone costs: loss_l(w) = kappa_l e_l(w). e_l is how much of what ffn.down gives is lost when OBS takes channels
// away one round after the other and the others take over (obs.h), from cached statistics; kappa_l makes it nats: the KL to the whole model
// of one narrower block between whole ones, measured at one width.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "engine/statistics.h"
#include "ir/model.h"
#include "stage/job.h"

namespace slmc::pruning {

// Per block the error at each width of `widths` (ascending; at the full width 0), of ffn.down's output on the statistics' windows, relative.
// Needs E[x xᵀ] of every block's ffn.down. The same bytes for any number of threads.
std::vector<std::map<std::int64_t, double>> width_errors(const ir::Model& model, const engine::Statistics& statistics,
                                                         const std::vector<std::int64_t>& widths, stage::Events& events);

// KL(whole || whole but for block l, which is `cut`'s) on windows [n, seq], for each l: half a forward pass per block. `cut` differs from
// `model` inside blocks only. The same bytes for any number of threads.
std::vector<double> block_costs(const ir::Model& model, const ir::Model& cut, const at::Tensor& windows, at::Device device, stage::Events& events);

}  // namespace slmc::pruning
