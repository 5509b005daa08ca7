#include "engine/tensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>

#include "core/bytes.h"

namespace slmc::engine {

at::ScalarType scalar_type(DType t) {
  switch (t) {
    case DType::F64: return at::kDouble;
    case DType::F32: return at::kFloat;
    case DType::F16: return at::kHalf;
    case DType::BF16: return at::kBFloat16;
    case DType::F8_E4M3: return at::kFloat8_e4m3fn;
    case DType::F8_E5M2: return at::kFloat8_e5m2;
    case DType::I64: return at::kLong;
    case DType::I32: return at::kInt;
    case DType::I16: return at::kShort;
    case DType::I8: return at::kChar;
    case DType::U8: return at::kByte;
    case DType::Bool: return at::kBool;
    case DType::U64:
    case DType::U32:
    case DType::U16: break;
  }
  throw Error(ErrorKind::Unsupported, "the element type must be one that LibTorch computes with, but is " + std::string(to_string(t)));
}

DType dtype_of(at::ScalarType t) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto d = static_cast<DType>(i);
    if (d != DType::U64 && d != DType::U32 && d != DType::U16 && scalar_type(d) == t) return d;
  }
  throw Error(ErrorKind::Unsupported, std::string("the element type must be one that safetensors holds, but is ") + c10::toString(t));
}

namespace {

// A tensor over memory that `owner` keeps alive.
at::Tensor view_of(const void* data, at::IntArrayRef shape, at::ScalarType type, std::shared_ptr<const void> owner) {
  return at::from_blob(const_cast<void*>(data), shape, [owner = std::move(owner)](void*) {}, at::TensorOptions(type));
}

at::Tensor dense_view(const io::TensorData& data) {
  const at::ScalarType type = scalar_type(data.dtype);
  if (data.bytes.empty()) return at::empty(data.shape, at::TensorOptions(type));
  const bool aligned = reinterpret_cast<std::uintptr_t>(data.bytes.data()) % size_of(data.dtype) == 0;
  if (aligned) return view_of(data.bytes.data(), data.shape, type, data.owner);
  at::Tensor copy = at::empty(data.shape, at::TensorOptions(type));
  std::memcpy(copy.mutable_data_ptr(), data.bytes.data(), data.bytes.size());
  return copy;
}

}  // namespace

at::Tensor to_tensor(const io::TensorData& data, std::optional<at::ScalarType> want) {
  if (data.quantized) {
    auto values = std::make_shared<std::vector<float>>(data.to_floats());
    const at::Tensor t = view_of(values->data(), data.shape, at::kFloat, values);
    return want ? t.to(*want) : t;
  }
  SLMC_CHECK(data.bytes.size() == element_count(data.shape, "a tensor's shape") * size_of(data.dtype));
  const at::Tensor t = dense_view(data);
  return want ? t.to(*want) : t;
}

io::TensorData share(const at::Tensor& tensor) {
  const auto owner = std::make_shared<const at::Tensor>(tensor.detach().to(at::kCPU).contiguous());
  io::TensorData data;
  data.shape = owner->sizes().vec();
  data.dtype = dtype_of(owner->scalar_type());
  data.bytes = {static_cast<const std::byte*>(owner->const_data_ptr()), owner->nbytes()};
  data.owner = owner;
  return data;
}

io::TensorData to_data(const at::Tensor& tensor) {
  const at::Tensor t = tensor.detach().to(at::kCPU).contiguous();
  std::vector<std::byte> bytes(t.nbytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), t.const_data_ptr(), bytes.size());
  return io::TensorData::dense(t.sizes().vec(), dtype_of(t.scalar_type()), std::move(bytes));
}

}  // namespace slmc::engine
