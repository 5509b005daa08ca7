#pragma once
// What the part before a gap must add: the least squares that depth/heal.h writes down, on the streams of any cut. Healing and the searches that
// judge after a repair share it.
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "engine/decoder.h"
#include "pruning/depth/units.h"

namespace slmc::pruning {

// In heal.h's letters, over all positions of some windows.
struct MissingSums {
  at::Tensor a, r;                 // A [in, in], R [hidden, in], fp64
  double size = 0;                 // E|g (t - y)|²
};

// attn.o or ffn.down of a part, by logical name.
std::string last_linear(const Unit& part);

// x [n, seq, hidden], the stream at the input of block `from`, to where `part` begins, in place; Unit{blocks, Attention}: behind the last block.
void run_to(const engine::Arch& arch, engine::Weights& weights, at::Tensor& x, std::int64_t from, const Unit& part);

// `streams` [n, seq, hidden] of the cut model at the input of the block that holds `part`, left as they are; targets(first, count) gives t of some
// of the windows, [count, seq, hidden].
using Targets = std::function<at::Tensor(std::int64_t first, std::int64_t count)>;
MissingSums missing_sums(const engine::Arch& cut, engine::Weights& weights, const Unit& part, const at::Tensor& streams, const Targets& targets);

struct Refit {
  at::Tensor delta;                // [hidden, in] fp64; undefined when no ridge explains anything on the held-out windows
  double ridge = 0;
  double explained = 0;            // share of E|g (t - y)|² of the held-out windows
};

// R (A + ridge I)⁻¹ of `fit`, or with `linear` R Wᵀ (W A Wᵀ + ridge I)⁻¹ W, with the ridge that explains most of `held`. w [hidden, in] fp64.
Refit refit(const at::Tensor& w, const MissingSums& fit, const MissingSums& held, bool linear, const std::string& name);

}  // namespace slmc::pruning
