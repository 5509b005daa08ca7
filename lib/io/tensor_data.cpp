#include "io/tensor_data.h"

#include <cstring>

#include "core/bytes.h"
#include "core/error.h"

namespace slmc::io {
namespace {

std::size_t elements(const std::vector<std::int64_t>& shape) {
  return static_cast<std::size_t>(element_count(shape, "the tensor"));
}

// One loop per kind of zero, groups outside: the inner loops vectorise.
void dequantize_groups(const Quantized& q, std::span<float> out) {
  const auto group = static_cast<std::size_t>(q.scheme.group);
  const auto middle = static_cast<float>(1 << (q.scheme.bits - 1));
  for (std::size_t g = 0; g < q.scales.size(); ++g) {
    const std::uint8_t* codes = q.codes.data() + g * group;
    float* values = out.data() + g * group;
    const float scale = q.scales[g];
    if (q.scheme.zero == QuantScheme::Zero::Min) {
      const float min = q.mins[g];
      for (std::size_t i = 0; i < group; ++i) values[i] = scale * static_cast<float>(codes[i]) + min;
    } else {
      const float zero = q.scheme.zero == QuantScheme::Zero::Symmetric ? middle : q.mins[g];
      for (std::size_t i = 0; i < group; ++i) values[i] = scale * (static_cast<float>(codes[i]) - zero);
    }
  }
}

}  // namespace

TensorData TensorData::dense(std::vector<std::int64_t> shape, DType dtype, std::vector<std::byte> bytes) {
  SLMC_CHECK(bytes.size() == elements(shape) * size_of(dtype));
  TensorData t;
  t.shape = std::move(shape);
  t.dtype = dtype;
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  t.bytes = *owner;
  t.owner = std::move(owner);
  return t;
}

TensorData TensorData::floats(std::vector<std::int64_t> shape, const std::vector<float>& values) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(values));
  return dense(std::move(shape), DType::F32, {bytes.begin(), bytes.end()});
}

TensorData TensorData::of(std::vector<std::int64_t> shape, Quantized q) {
  const std::size_t count = elements(shape);
  SLMC_CHECK(q.scheme.bits >= 2 && q.scheme.bits <= 8 && q.scheme.group > 0);
  SLMC_CHECK(!shape.empty() && shape.back() % q.scheme.group == 0);
  SLMC_CHECK(q.codes.size() == count && q.scales.size() == count / static_cast<std::size_t>(q.scheme.group));
  SLMC_CHECK(q.mins.size() == (q.scheme.zero == QuantScheme::Zero::Symmetric ? 0 : q.scales.size()));
  TensorData t;
  t.shape = std::move(shape);
  t.quantized = std::make_shared<const Quantized>(std::move(q));
  return t;
}

std::int64_t TensorData::count() const { return static_cast<std::int64_t>(elements(shape)); }

std::vector<float> TensorData::to_floats() const {
  std::vector<float> out(elements(shape));
  if (quantized) {
    dequantize_groups(*quantized, out);
  } else {
    to_f32(dtype, bytes, out);
  }
  return out;
}

}  // namespace slmc::io
