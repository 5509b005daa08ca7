#pragma once
// The control: a seeded draw. A criterion that does not beat it measures nothing.
#include "pruning/width/criterion.h"

namespace slmc::pruning {

at::Tensor random_channels(const FfnPart& part);      // uniform [0, 1), the i-th number of part.rng
at::Tensor random_groups(const KvPart& part);

}  // namespace slmc::pruning
