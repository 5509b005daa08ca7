#pragma once
// `allocate: per-layer`: feed-forward widths of the blocks that together cost no more than a target allows, where they cost the least KL.
//   1. the uniform plan at the target, and each of its blocks tried alone (marginal.h)
//   2. widths by dynamic programming over exact costs (allocate.h)
//   3. both plans on held-out windows, behind a dense refit: the one with the lower KL to the whole model is taken
//   4. with `refit: sequential`, that one is repaired in sequence
// All text is calibration text: statistics are of the windows that fit, everything else of the last eighth, its first half for 1, its
// second for 3. The same plan for any number of threads.
#include "ir/target.h"
#include "pruning/width/narrow.h"

namespace slmc::pruning {

struct PerLayer {
  std::vector<std::int64_t> widths;           // by block; empty: uniform is better
  Narrowed narrowed;                          // of the better one
  double kl_uniform = 0, kl_per_layer = 0;    // held-out, nats per token, behind a dense refit where settings ask for a sequential one
  std::vector<double> tried;                  // KL of each block alone at the uniform width
};

// settings.widths.ffn: the uniform width; nothing else is narrowed. `align`: widths are its multiples, a quarter of the block at least.
// `target`: what the result keeps to; its most is not below the uniform model's cost.
PerLayer per_layer(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings, std::int64_t align,
                   const ir::Target& target, const ir::Meter& meter, stage::Events& events);

// Block by block the widths that per_layer may choose among, with exact costs but without losses: multiples of `align` and the present width.
std::vector<std::int64_t> block_widths(const ir::Model& model, std::int64_t align);

}  // namespace slmc::pruning
