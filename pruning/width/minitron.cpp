#include "pruning/width/minitron.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

namespace slmc::pruning {
namespace {

at::Tensor squared(const at::Tensor& window_mean_abs) { return window_mean_abs.square().sum(0); }

}  // namespace

at::Tensor minitron_of_channels(const FfnPart& part) { return squared(part.inputs.window_mean_abs).sqrt(); }

at::Tensor minitron_of_groups(const KvPart& part) { return squared(part.inputs.window_mean_abs).view({part.groups, -1}).sum(1).sqrt(); }

at::Tensor minitron_of_heads(const KvPart& part) {
  return squared(part.inputs.window_mean_abs).view({part.groups, part.heads, -1}).sum(2).sqrt();
}

at::Tensor minitron_of_hidden(const HiddenPart& part) {
  at::Tensor sum = at::zeros({part.hidden}, at::kDouble);
  for (const at::Tensor& norm : part.norm_mean_abs) sum.add_(squared(norm).sqrt());
  return sum;
}

}  // namespace slmc::pruning
