#pragma once
// L1 and L2: sums of |w| or w² over a structure's weights, the magnitude of LLM-Pruner and Torch-Pruning [Li et al. 2017,
// arXiv:1608.08710, sec. 3.1; Ma et al. 2023, arXiv:2305.11627, table 1 "L2"]. Needs no text.
//   entry i of tensor m    n_m(i) = sum over its weights of |w|^p          no root is taken, as in both programs
//   structure              the tensors' entries aggregated, then summed (aggregate.h)
#include "pruning/width/criterion.h"

namespace slmc::pruning {

at::Tensor l1_of_channels(const FfnPart& part);
at::Tensor l1_of_groups(const KvPart& part);
at::Tensor l1_of_heads(const KvPart& part);
at::Tensor l2_of_channels(const FfnPart& part);
at::Tensor l2_of_groups(const KvPart& part);
at::Tensor l2_of_heads(const KvPart& part);

}  // namespace slmc::pruning
