#pragma once
// FLAP: what can be replaced by its mean is worth little [An et al. 2023, arXiv:2312.11983, eq. 4 to 6].
//   column j      f_j = Var(x_j) |W_:j|²                 W = ffn.down or attn.o, x its inputs
//   channel i     f_i, standardised over the block's channels: (f - mean) / deviation
//   head, group   f_j², standardised over the columns of attn.o, then the mean over the structure's columns, as in the published code
//   bias          W_:P E[x_P], added to the output, stands for the removed columns P
// Scores of different blocks, channels and heads can be compared. Inside a block standardising changes no ranking. Differs from the
// published code: the variance is over tokens; it mixes variances and means of samples.
#include "pruning/width/criterion.h"

namespace slmc::pruning {

at::Tensor flap_of_channels(const FfnPart& part);
at::Tensor flap_of_groups(const KvPart& part);
at::Tensor flap_of_heads(const KvPart& part);

// The bias for w [out, n] that keeps the columns `kept`, mean [n] fp64 of its inputs: [out] fp64.
at::Tensor removed_mean(const at::Tensor& w, const at::Tensor& mean, const std::vector<std::int64_t>& kept);

}  // namespace slmc::pruning
