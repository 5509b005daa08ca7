#pragma once
// Solved weights in the precision that the model's file keeps.
#include <ATen/core/Tensor.h>

#include "ir/model.h"

namespace slmc::pruning {

// Rounded to 16 bits and back where the file holds 16-bit floats; else fp32. Quantized tensors become F32.
at::Tensor as_stored(const at::Tensor& w, const ir::TensorSpec& spec);                // fp32
io::TensorData stored_data(const at::Tensor& w, const ir::TensorSpec& spec);          // in that type

}  // namespace slmc::pruning
