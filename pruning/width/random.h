#pragma once
// The control: a seeded draw. A criterion that does not beat it measures nothing.
#include "pruning/width/criterion.h"

namespace slmc::pruning {

at::Tensor random_channels(const FfnPart& part);      // uniform [0, 1), the i-th number of part.rng
at::Tensor random_groups(const KvPart& part);
at::Tensor random_heads(const KvPart& part);
at::Tensor random_hidden(const HiddenPart& part);

}  // namespace slmc::pruning
