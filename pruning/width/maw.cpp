#include "pruning/width/maw.h"

#include <ATen/TensorOperators.h>

namespace slmc::pruning {
namespace {

at::Tensor spread(const at::Tensor& w) {
  const at::Tensor wide = w.to(at::kDouble);
  return wide.amax(1) + wide.amin(1).abs();
}

}  // namespace

at::Tensor maw_of_channels(const FfnPart& part) { return part.gate.defined() ? spread(part.gate) + spread(part.up) : spread(part.up); }

}  // namespace slmc::pruning
