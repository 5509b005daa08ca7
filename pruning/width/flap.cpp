#include "pruning/width/flap.h"

#include <ATen/TensorOperators.h>

namespace slmc::pruning {
namespace {

// A variance is never negative but by rounding: E[x²] - E[x]² of a constant input.
at::Tensor fluctuation(const at::Tensor& w, const Inputs& inputs) {
  return (inputs.mean_square - inputs.mean.square()).clamp_min(0) * row_norms(w.t()).square();
}

at::Tensor standardised(const at::Tensor& scores) {
  const at::Tensor centred = scores - scores.mean();
  const double deviation = scores.numel() > 1 ? scores.std().item<double>() : 0;
  return deviation > 0 ? centred / deviation : centred;
}

at::Tensor columns_of_o(const KvPart& part) { return standardised(fluctuation(part.o, part.inputs).square()); }

}  // namespace

at::Tensor flap_of_channels(const FfnPart& part) { return standardised(fluctuation(part.down, part.inputs)); }

at::Tensor flap_of_groups(const KvPart& part) { return columns_of_o(part).view({part.groups, -1}).mean(1); }

at::Tensor flap_of_heads(const KvPart& part) { return columns_of_o(part).view({part.groups, part.heads, -1}).mean(2); }

at::Tensor removed_mean(const at::Tensor& w, const at::Tensor& mean, const std::vector<std::int64_t>& kept) {
  at::Tensor removed = mean.to(at::kCPU, at::kDouble).clone();
  for (const std::int64_t k : kept) removed.mutable_data_ptr<double>()[k] = 0;
  return w.to(at::kCPU, at::kDouble).mv(removed);
}

}  // namespace slmc::pruning
