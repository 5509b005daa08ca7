#pragma once
// Closed-form repair of a depth cut: the last linear map before each gap learns to add what the removed parts added.
//
// Parts (attention, feed-forward) behind part p are gone up to the next kept one. a [in] are the inputs of p's last linear map W (attn.o or
// ffn.down) in the cut model, y [hidden] the stream behind p there, t the whole model's stream where the gap ends. With g = 1 / |t|, because
// the next norm divides by it (the first token's stream can be a hundred times longer than all others and would rule the sums),
//   A = E[g² a aᵀ],   R = E[g² (t - y) aᵀ]
//   refit    W' = W + R (A + ridge I)⁻¹                                minimises E|g (t - y - (W' - W) a)|², held to W
//   linear   W' = W + R Wᵀ (W A Wᵀ + ridge I)⁻¹ W                      the same with W' = T W: ReplaceMe [Shopkhoev et al. 2025, arXiv:2505.02819]
//   merge    every tensor of the block before the gap: V' = V + sum over removed blocks k of (V_k - V)      LaCo [Yang et al. 2024,
//            arXiv:2402.11187, eq. 2]; gaps of whole blocks only
// V <- V + alpha (V' - V), alpha by the KL on windows that the sums have not seen. No parameter is added. With refit, the kept parts behind the
// first gap are solved in the same way for what is still missing behind each of them, where that explains a thousandth of it or more.
// Differs from the papers: gaps may lie apart and are healed front to back with inputs of the cut model, so that a later gap also takes up what
// an earlier one left over; alpha; ReplaceMe has no g and fits on the whole model's inputs; LaCo's cosine threshold is the KL.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "engine/weights.h"
#include "ir/model.h"
#include "pruning/depth/gap.h"
#include "pruning/depth/judge.h"
#include "stage/job.h"

namespace slmc::pruning {

enum class Repair { Refit, Linear, Merge };

struct HealedGap {
  Gap gap;
  double ridge = 0;
  double explained = 0;            // share of E|g (t - y)|² on held-out windows that is gone; merge: not known
  double alpha = 0;                // 0: healing did not lower the KL, the weights stay
  double kl = 0;                   // of the cut model with this and all earlier gaps healed, on the judge's windows
};

struct Healed {
  std::map<std::string, at::Tensor> weights;      // by logical name in the whole model, fp32
  std::vector<HealedGap> gaps;
  std::int64_t followers = 0;                     // parts behind gaps that were refitted too
};

// `weights` hold the whole model and are given back unchanged; `cut` has sizes of 0 where parts are removed. `windows` [n, seq] are for the
// sums; `judge`, over windows that are not among them, chooses ridge and alpha. Gaps at the front stay as they are.
Healed heal(const ir::Model& model, engine::PlainWeights& weights, const engine::Arch& cut, Repair repair, const at::Tensor& windows,
            const Judge& judge, stage::Events& events);

}  // namespace slmc::pruning
