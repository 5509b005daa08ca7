#pragma once
// Where the weights of a matrix may lie: per row and group of columns a scale, and a minimum or zero point, already in the precision
// that the container writes. Grids are fitted first and then frozen; rounding and GPTQ choose codes on them.
//
// (G1) level(g, c) is, bit for bit, what the container's reader computes for code c (io::QuantScheme).
// (G2) nearest(g, t) is the code whose level is nearest to t; exact ties go to the even code.
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "io/tensor_data.h"

namespace slmc::quantization {

struct Grid {
  io::QuantScheme scheme;
  std::int64_t rows = 0, columns = 0;
  std::vector<float> scales;       // [rows, columns / group]
  std::vector<float> mins;         // Min: the minimum; ZeroPoint: the zero, 0 .. 2^bits - 1; Symmetric: empty

  std::int64_t groups() const { return columns / scheme.group; }
  float level(std::int64_t g, int code) const;              // g = row * groups() + group
  // T = double inside GPTQ; T = float for plain rounding, in the arithmetic of compressed-tensors.
  template <typename T>
  int nearest(std::int64_t g, T value) const;
};

// A scale or minimum as a container of this type gives it back.
float as_written(float value, DType type);
// The largest of 128, 64, 32, 16 that divides every width; 8 when none does. 96 is left out: fast kernels know powers of two.
std::int64_t largest_group(const std::vector<std::int64_t>& widths);
// Error(Recipe) unless scheme.group divides `columns`, naming the nearest group sizes that do. `what`: the tensor's name.
void require_group(const io::QuantScheme& scheme, std::int64_t columns, const std::string& what);

// Data-free fit of compressed-tensors (`calculate_qparams`): Symmetric scale = max|w| / (2^bits - 1) * 2; ZeroPoint the range of w and 0.
// w [rows, columns] fp32. The reference fits of GGUF types are io::quantize_reference.
Grid range_grid(const at::Tensor& w, const io::QuantScheme& scheme);

struct SearchSettings {
  bool signed_scales = true;       // Symmetric: negative scales too, so that the end with one more level lies where it is needed
};

// Scales (and minima) that minimise sum_j h_j (w_j - nearest level)^2 in each group, h [columns] > 0 the importance of each input:
// E[x_j^2], the diagonal of the Gram matrix. Candidates by shrinking the range, each improved by weighted least squares on its own codes
// [make_qkx2_quants of ggml does the same for its K types]. Groups without importance count every input alike.
Grid search_grid(const at::Tensor& w, const at::Tensor& importance, const io::QuantScheme& scheme, const SearchSettings& settings = {});

// Round to nearest on a grid.
io::Quantized round_to(const Grid& grid, const at::Tensor& w);

// ---- inline

inline float Grid::level(std::int64_t g, int code) const {
  const auto c = static_cast<float>(code);
  switch (scheme.zero) {
    case io::QuantScheme::Zero::Min: return scales[g] * c + mins[g];
    case io::QuantScheme::Zero::ZeroPoint: return scales[g] * (c - mins[g]);
    default: return scales[g] * (c - static_cast<float>(1 << (scheme.bits - 1)));
  }
}

template <typename T>
int Grid::nearest(std::int64_t g, T value) const {
  const T middle = static_cast<T>(1 << (scheme.bits - 1)), most = static_cast<T>((1 << scheme.bits) - 1);
  const T scale = scales[g];
  T code;
  if (scheme.zero == io::QuantScheme::Zero::Min) {
    code = scale == 0 ? T(0) : std::nearbyint((value - static_cast<T>(mins[g])) / scale);
  } else {
    const T zero = scheme.zero == io::QuantScheme::Zero::Symmetric ? T(0) : static_cast<T>(mins[g]) - middle;
    code = (scale == 0 ? zero : std::nearbyint(value / scale + zero)) + middle;
  }
  return static_cast<int>(std::clamp(code, T(0), most));
}

}  // namespace slmc::quantization
