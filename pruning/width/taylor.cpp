#include "pruning/width/taylor.h"

#include <ATen/core/Tensor.h>

#include "pruning/width/aggregate.h"

namespace slmc::pruning {

at::Tensor taylor_of_channels(const FfnPart& part) { return aggregated(part.gradients, part.aggregate); }

at::Tensor taylor_of_groups(const KvPart& part) { return aggregated_groups(part.gradients, part); }

at::Tensor taylor_of_heads(const KvPart& part) { return aggregated_heads(part.gradients, part); }

at::Tensor taylor_of_hidden(const HiddenPart& part) { return aggregated(part.gradients, part.aggregate); }

at::Tensor taylor_kl_of_channels(const FfnPart& part) { return part.gradients.at(0); }

at::Tensor taylor_kl_of_groups(const KvPart& part) { return part.gradients.at(0); }

at::Tensor taylor_kl_of_heads(const KvPart& part) { return part.gradients.at(1).view({part.groups, part.heads}); }

at::Tensor taylor_kl_of_hidden(const HiddenPart& part) { return part.gradients.at(0); }

}  // namespace slmc::pruning
