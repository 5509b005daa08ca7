#pragma once
// Minitron's activation importance: how large what flows through a structure is, the mean over tokens of its size, the L2 norm over
// windows [Muralidharan et al. 2024, arXiv:2407.14679, sec. 2.2, with the aggregation (mean, L2) of table 15].
//   entry j       a_j = (sum over windows b of (mean over tokens t of |x_btj|)²)^1/2
//   channel i     a_i of what ffn.down reads
//   head, group   (sum of a_j² over its columns of attn.o)^1/2
//   hidden c      sum over the blocks' norms of a_c of what the norm gives
// Differs from the paper: a window is a sample, batches of more than one are not summed before the root. Groups, which Minitron keeps, are
// scored as their heads are.
#include "pruning/width/criterion.h"

namespace slmc::pruning {

at::Tensor minitron_of_channels(const FfnPart& part);
at::Tensor minitron_of_groups(const KvPart& part);
at::Tensor minitron_of_heads(const KvPart& part);
at::Tensor minitron_of_hidden(const HiddenPart& part);

}  // namespace slmc::pruning
