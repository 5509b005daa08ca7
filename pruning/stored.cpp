#include "pruning/stored.h"

#include "engine/tensors.h"

namespace slmc::pruning {
namespace {

at::ScalarType type_of(const ir::TensorSpec& spec) {
  return spec.stored_dtype == "BF16" ? at::kBFloat16 : spec.stored_dtype == "F16" ? at::kHalf : at::kFloat;
}

}  // namespace

at::Tensor as_stored(const at::Tensor& w, const ir::TensorSpec& spec) { return w.to(type_of(spec)).to(at::kFloat); }

io::TensorData stored_data(const at::Tensor& w, const ir::TensorSpec& spec) { return engine::to_data(w.to(type_of(spec))); }

}  // namespace slmc::pruning
