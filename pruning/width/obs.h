#pragma once
// Optimal brain surgeon for whole structures, greedy: remove what the others can stand in for best, let them do so, look again
// [Hassibi & Stork 1993, eq. 5; for groups of columns Kurtic et al. 2023, arXiv:2302.04089, eq. 4].
//
// With M = (E[x xᵀ] + ridge I)⁻¹ and W = ffn.down or attn.o, x its inputs, g a structure's columns:
//   score     s_g = tr(W_g (M_gg)⁻¹ W_gᵀ)            the rise of tr(dW E[x xᵀ] dWᵀ) when g goes and the others are refitted
//   removal   W <- W - W_g (M_gg)⁻¹ M_g,:            M <- M - M_:,g (M_gg)⁻¹ M_g,:
// Channels go in kRounds rounds of equal size, heads and groups one at a time. What stays is what narrow's refit starts from: its W' is
// the end of this chain. Differs from the papers: removals of one round are refitted together; there is no gradient step between.
#include "pruning/width/criterion.h"

namespace slmc::pruning {

inline constexpr std::int64_t kObsRounds = 16;
inline constexpr double kObsRidge = 1e-2;          // of the mean diagonal of E[x xᵀ]

struct ObsTrace {
  std::vector<std::int64_t> removed;   // structures in the order of their removal
  std::vector<double> error;           // same length: s of all removed so far, rounds summed; equal inside a round
  at::Tensor left;                     // [structures] fp64: final scores of what stays; 0 for what is gone
};

// Removes all but `keep` of the structures, runs of equal length of the columns of w [out, n]; gram [n, n]. `rounds` >= 1 is clamped to
// the number of removals. With `inside` > 1 the structures come in runs of so many, and each run keeps `keep` of its own. fp64, on one
// thread per product: the same bytes for any number of threads. Error(Numeric) as engine::factor, naming `what`.
ObsTrace obs_trace(const at::Tensor& w, const at::Tensor& gram, std::int64_t structures, std::int64_t keep, std::int64_t rounds, double ridge,
                   const std::string& what, std::int64_t inside = 1);

// Scores: the place in the order of removal; what stays comes last, by its final score.
at::Tensor obs_of_channels(const FfnPart& part);
at::Tensor obs_of_groups(const KvPart& part);
at::Tensor obs_of_heads(const KvPart& part);

}  // namespace slmc::pruning
