#include "pruning/width/magnitude.h"

#include <ATen/TensorOperators.h>

namespace slmc::pruning {

at::Tensor magnitude_of_channels(const FfnPart& part) {
  const at::Tensor up_down = row_norms(part.up) * row_norms(part.down.t());
  return part.gate.defined() ? row_norms(part.gate) * up_down : up_down;
}

at::Tensor magnitude_of_groups(const KvPart& part) {
  const std::int64_t g = part.groups;
  return run_norms(part.q, g) * run_norms(part.k, g) * run_norms(part.v, g) * run_norms(part.o.t(), g);
}

at::Tensor magnitude_of_heads(const KvPart& part) {
  const std::int64_t n = part.groups * part.heads;
  return (run_norms(part.q, n) * run_norms(part.o.t(), n)).view({part.groups, part.heads});
}

}  // namespace slmc::pruning
