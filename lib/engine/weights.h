#pragma once
// How named weights act. The decoder asks for a linear map or a vector by its logical name (ir/model.h) and never knows whether it
// is plain, low-rank adapted, fake-quantized or int8.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ir/model.h"

namespace slmc::engine {

class Weights {
 public:
  virtual ~Weights() = default;
  virtual bool has(const std::string& name) const = 0;
  virtual at::Tensor tensor(const std::string& name) = 0;                         // embed, norms, biases, rope: as a value
  virtual at::Tensor linear(const std::string& name, const at::Tensor& x) = 0;    // x [.., in] -> [.., out], bias NAME.bias included
};

// Where tensors that need no conversion live: in private memory, which trainers may write, or in the model file's read-only pages,
// which cost no memory of the process and must never be written.
enum class Storage { Owned, Mapped };

// All tensors of a model in memory, on one device, in one dtype.
class PlainWeights : public Weights {
 public:
  PlainWeights() = default;
  // Reads every tensor once. rope tables stay fp64 on the CPU: angles are computed there. dtype: kFloat, kDouble, kBFloat16.
  PlainWeights(const ir::Model& model, at::ScalarType dtype, at::Device device, Storage storage = Storage::Owned);
  bool has(const std::string& name) const override;
  at::Tensor tensor(const std::string& name) override;                            // SLMC_CHECK when there is none
  at::Tensor linear(const std::string& name, const at::Tensor& x) override;
  std::map<std::string, at::Tensor>& all() { return tensors_; }                   // trainers set requires_grad here
  const std::map<std::string, at::Tensor>& all() const { return tensors_; }

 private:
  std::map<std::string, at::Tensor> tensors_;
};

// Tensors of one block (or of outside the blocks, block = -1) only: block-by-block passes over models larger than memory.
PlainWeights load_block(const ir::Model& model, std::int64_t block, at::ScalarType dtype, at::Device device,
                        Storage storage = Storage::Owned);

}  // namespace slmc::engine
