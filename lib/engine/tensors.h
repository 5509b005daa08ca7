#pragma once
// Host tensors of files and IR to ATen tensors and back.
#include <ATen/core/Tensor.h>

#include <optional>

#include "io/tensor_data.h"

namespace slmc::engine {

at::ScalarType scalar_type(DType t);                                  // Error(Unsupported) for U16 U32 U64
DType dtype_of(at::ScalarType t);
// Zero copy when `want` is the stored type (the tensor keeps the map alive; pages are read-only: never write in place),
// else converted; quantized data is dequantized. Undefined `want` keeps the stored type (F32 for quantized).
at::Tensor to_tensor(const io::TensorData& data, std::optional<at::ScalarType> want = at::kFloat);
io::TensorData to_data(const at::Tensor& tensor);                     // contiguous CPU copy in the tensor's own type
io::TensorData share(const at::Tensor& tensor);                       // the same without a copy where the tensor is contiguous on the CPU

}  // namespace slmc::engine
