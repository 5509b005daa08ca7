#pragma once
// Scores from gradients (gradients.h has formulas and papers), as the criteria of the table:
//   taylor-vector  taylor-element1  taylor-element2  taylor-mixed     LLM-Pruner: per tensor, aggregated over a structure's tensors
//   taylor-kl                                                          one number for each structure's gate
// Groups score as MHA heads do in LLM-Pruner, with the query heads that read them.
#include "pruning/width/criterion.h"

namespace slmc::pruning {

at::Tensor taylor_of_channels(const FfnPart& part);
at::Tensor taylor_of_groups(const KvPart& part);
at::Tensor taylor_of_heads(const KvPart& part);
at::Tensor taylor_of_hidden(const HiddenPart& part);

at::Tensor taylor_kl_of_channels(const FfnPart& part);
at::Tensor taylor_kl_of_groups(const KvPart& part);
at::Tensor taylor_kl_of_heads(const KvPart& part);
at::Tensor taylor_kl_of_hidden(const HiddenPart& part);

}  // namespace slmc::pruning
