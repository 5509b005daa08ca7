#pragma once
// Wanda for whole structures: the size of the output that a column of weights gives, taken as if inputs were uncorrelated
// [Sun et al. 2023, arXiv:2306.11695, eq. 1; for channels as in An et al. 2023, arXiv:2312.11983].
//   column j    s_j = E[x_j²]^1/2 |W_:j|           W = ffn.down or attn.o, x its inputs
//   channel i   s_i
//   group g     (sum of s_j² over the group's columns of attn.o)^1/2; a head the same over its own
// Differs from the paper: columns in place of single weights, so the norm over rows stands where |W_ij| does.
#include "pruning/width/criterion.h"

namespace slmc::pruning {

at::Tensor wanda_of_channels(const FfnPart& part);
at::Tensor wanda_of_groups(const KvPart& part);
at::Tensor wanda_of_heads(const KvPart& part);

}  // namespace slmc::pruning
