#pragma once
// Magnitude: norms of a structure's weights [Li et al. 2017, arXiv:1608.08710, sec. 3.1, for filters]. Needs no text.
//   channel i   |gate_i| |up_i| |down_:i|          without gate: |up_i| |down_:i|
//   group g     |q_g| |k_g| |v_g| |o_:g|
//   head j      |q_j| |o_:j|                       k and v are shared by the heads of a group
// Differs from the paper: the product over the matrices that a structure runs through, not one matrix, because scaling one up and
// the next down by the same factor changes nothing.
#include "pruning/width/criterion.h"

namespace slmc::pruning {

at::Tensor magnitude_of_channels(const FfnPart& part);
at::Tensor magnitude_of_groups(const KvPart& part);
at::Tensor magnitude_of_heads(const KvPart& part);

}  // namespace slmc::pruning
