#pragma once
// A tensor in host memory: dense elements, or quantized groups. The one currency between files, IR and engine.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace slmc::io {

// How a group of `group` consecutive elements of a row is coded:
//   Symmetric   w = scale * (code - 2^(bits-1))             Q4_0, Q5_0, Q8_0, compressed-tensors symmetric
//   Min         w = scale * code + min                      Q4_1, Q5_1
//   ZeroPoint   w = scale * (code - zero), zero an integer  compressed-tensors asymmetric
// Scales and mins hold values that `scale_dtype` represents exactly, kept as float. Arithmetic is fp32, in this order.
struct QuantScheme {
  enum class Zero { Symmetric, Min, ZeroPoint };
  int bits = 4;                        // 2..8
  std::int64_t group = 32;             // divides the row length
  Zero zero = Zero::Symmetric;
  DType scale_dtype = DType::F16;      // F16, BF16 or F32
  bool operator==(const QuantScheme&) const = default;
};

// Codes are one byte each, row-major [rows, columns]; scales, mins or zeros [rows, columns / group].
struct Quantized {
  QuantScheme scheme;
  std::vector<std::uint8_t> codes;     // 0 .. 2^bits - 1
  std::vector<float> scales;
  std::vector<float> mins;             // Zero::Min: the min; Zero::ZeroPoint: the zero point; else empty
  bool operator==(const Quantized&) const = default;
};

struct TensorData {
  std::vector<std::int64_t> shape;     // [out, in] for matrices
  DType dtype = DType::F32;            // of `bytes`; ignored when quantized
  std::span<const std::byte> bytes;    // a view into `owner` (a mapped file or a buffer)
  std::shared_ptr<const void> owner;
  std::shared_ptr<const Quantized> quantized;   // set: `bytes` is empty

  static TensorData dense(std::vector<std::int64_t> shape, DType dtype, std::vector<std::byte> bytes);
  static TensorData floats(std::vector<std::int64_t> shape, const std::vector<float>& values);   // F32
  static TensorData of(std::vector<std::int64_t> shape, Quantized q);
  std::int64_t count() const;                   // elements
  std::vector<float> to_floats() const;         // dequantized exactly, converted to fp32
};

}  // namespace slmc::io
