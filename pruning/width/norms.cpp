#include "pruning/width/norms.h"

#include <ATen/TensorOperators.h>

#include "pruning/width/aggregate.h"

namespace slmc::pruning {
namespace {

at::Tensor rows(const at::Tensor& w, int p) {
  const at::Tensor wide = w.to(at::kDouble);
  return (p == 1 ? wide.abs() : wide.square()).sum(1);
}

at::Tensor channels(const FfnPart& part, int p) {
  std::vector<at::Tensor> all = {rows(part.up, p), rows(part.down.t(), p)};
  if (part.gate.defined()) all.insert(all.begin(), rows(part.gate, p));
  return aggregated(all, part.aggregate);
}

std::vector<at::Tensor> attention(const KvPart& part, int p) {
  return {rows(part.q, p), rows(part.k, p), rows(part.v, p), rows(part.o.t(), p)};
}

}  // namespace

at::Tensor l1_of_channels(const FfnPart& part) { return channels(part, 1); }
at::Tensor l1_of_groups(const KvPart& part) { return aggregated_groups(attention(part, 1), part); }
at::Tensor l1_of_heads(const KvPart& part) { return aggregated_heads(attention(part, 1), part); }
at::Tensor l2_of_channels(const FfnPart& part) { return channels(part, 2); }
at::Tensor l2_of_groups(const KvPart& part) { return aggregated_groups(attention(part, 2), part); }
at::Tensor l2_of_heads(const KvPart& part) { return aggregated_heads(attention(part, 2), part); }

}  // namespace slmc::pruning
