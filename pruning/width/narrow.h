#pragma once
// The walk of `prune`: block after block, score channels and groups on what the already narrowed blocks let through, choose, and let the
// kept columns of ffn.down and attn.o take over what the removed ones gave (engine/solve.h, refit centred on W).
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "pruning/width/decide.h"
#include "stage/job.h"

namespace slmc::pruning {

struct NarrowSettings {
  Widths widths;
  std::string criterion = "wanda";
  bool refit = true;
  std::uint64_t seed = 0;                     // of the random criterion
  at::Device device = at::kCPU;
};

// One narrowed map: E|W x - W' x'|² / E|W x|² on windows that were used neither for scores nor for the refit.
struct NarrowedMap {
  std::string name;                           // "block.3.ffn.down"
  double cut = 0;                             // columns removed, nothing else
  double refitted = 0;                        // after the refit; equal to `cut` without one, or where it did not help
  double ridge = 0;                           // chosen on those windows
};

struct Narrowed {
  ir::Plan plan;                              // take, and the refitted maps under `set`
  std::vector<NarrowedMap> maps;
};

// windows [n, seq] int64, may be undefined when neither the criterion nor the refit needs them. The last eighth of the windows chooses the
// ridge and judges. Error(Interrupted) between blocks when asked to stop.
Narrowed narrow(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings, stage::Events& events);

}  // namespace slmc::pruning
