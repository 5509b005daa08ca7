#include "engine/weights.h"

#include <ATen/ops/linear.h>

#include "core/cancel.h"
#include "engine/functions.h"
#include "engine/tensors.h"

namespace slmc::engine {
namespace {

at::Tensor load(const ir::Model& model, const ir::TensorSpec& spec, at::ScalarType dtype, at::Device device, Storage storage) {
  const io::TensorData data = model.read(spec.name);
  if (spec.derived) return to_tensor(data, at::kDouble).clone();
  at::Tensor t = to_tensor(data, dtype).to(device);
  const bool in_file = !data.quantized && t.is_cpu() && t.const_data_ptr() == static_cast<const void*>(data.bytes.data());
  return in_file && storage == Storage::Owned ? t.clone() : t;
}

}  // namespace

PlainWeights::PlainWeights(const ir::Model& model, at::ScalarType dtype, at::Device device, Storage storage) {
  for (const ir::TensorSpec& spec : model.tensors()) {
    cancel_point("nothing was written");
    tensors_.emplace(spec.name, load(model, spec, dtype, device, storage));
  }
}

bool PlainWeights::has(const std::string& name) const { return tensors_.contains(name); }

at::Tensor PlainWeights::tensor(const std::string& name) {
  const auto it = tensors_.find(name);
  SLMC_CHECK(it != tensors_.end());
  return it->second;
}

at::Tensor PlainWeights::linear(const std::string& name, const at::Tensor& x) {
  const at::Tensor weight = tensor(name);
  const auto found = tensors_.find(name + ".bias");
  const at::Tensor bias = found == tensors_.end() ? at::Tensor() : found->second;
  return can_fuse(x) && can_fuse(weight) ? engine::linear(x, weight, bias) : at::linear(x, weight, bias);
}

PlainWeights load_block(const ir::Model& model, std::int64_t block, at::ScalarType dtype, at::Device device, Storage storage) {
  PlainWeights weights;
  for (const ir::TensorSpec& spec : model.tensors()) {
    if (spec.block == block) weights.all().emplace(spec.name, load(model, spec, dtype, device, storage));
  }
  return weights;
}

}  // namespace slmc::engine
