#pragma once
// Closed-form repair of a layer drop: the feed-forward part before each gap learns to add what the removed blocks added.
//
// Blocks l+1 .. l+n are gone; a [ffn] are the inputs of block l's ffn.down in the cut model, y what leaves block l there, t what left block
// l+n in the whole model. Then
//   W' = W + R (A + ridge I)⁻¹,   A = E[a aᵀ],   R = E[(t - y) aᵀ]
// minimises E|t - (y + (W' - W) a)|², held to W; W <- W + alpha (W' - W). No parameter is added.
// After ReplaceMe [Shopkhoev et al. 2025, arXiv:2505.02819], whose linear map T on the feed-forward output is the case W' = T W. Differs
// from the paper: all of ffn.down is free, gaps may lie apart, and inputs are those of the cut model, so that a later gap also takes up
// what an earlier one left over.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "engine/weights.h"
#include "ir/model.h"
#include "pruning/depth/judge.h"
#include "stage/job.h"

namespace slmc::pruning {

struct Gap {
  std::int64_t before = 0;         // block l, the last one kept; -1 when the gap is at the front
  std::int64_t first = 0, last = 0;   // removed, both included
};
std::vector<Gap> gaps_of(const std::vector<std::int64_t>& removed);      // removed: ascending

struct HealedGap {
  Gap gap;
  double ridge = 0;
  double explained = 0;            // share of E|t - y|² on held-out windows that is gone
  double alpha = 0;                // 0: healing did not lower the KL, the weights stay
  double kl = 0;                   // of the cut model with this and all earlier gaps healed, on the judge's windows
};

struct Healed {
  std::map<std::string, at::Tensor> weights;      // "block.4.ffn.down" by block of the whole model -> [hidden, ffn] fp32
  std::vector<HealedGap> gaps;
};

// `weights` hold the whole model and are given back unchanged. `windows` [n, seq] are for the sums; `judge`, over windows that are not among
// them, chooses ridge and alpha. Gaps at the front, and behind blocks without a feed-forward part, stay as they are.
Healed heal(const ir::Model& model, engine::PlainWeights& weights, const std::vector<std::int64_t>& removed, const at::Tensor& windows,
            const Judge& judge, stage::Events& events);

}  // namespace slmc::pruning
