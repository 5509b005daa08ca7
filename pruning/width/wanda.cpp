#include "pruning/width/wanda.h"

#include <ATen/TensorOperators.h>

namespace slmc::pruning {
namespace {

at::Tensor squared_columns(const at::Tensor& w, const at::Tensor& mean_square) { return row_norms(w.t()).square() * mean_square; }

}  // namespace

at::Tensor wanda_of_channels(const FfnPart& part) { return squared_columns(part.down, part.inputs.mean_square).sqrt(); }

at::Tensor wanda_of_groups(const KvPart& part) { return squared_columns(part.o, part.inputs.mean_square).view({part.groups, -1}).sum(1).sqrt(); }

at::Tensor wanda_of_heads(const KvPart& part) {
  return squared_columns(part.o, part.inputs.mean_square).view({part.groups, part.heads, -1}).sum(2).sqrt();
}

}  // namespace slmc::pruning
