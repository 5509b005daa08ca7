#pragma once
// GPTQ [Frantar et al. 2022, arXiv:2210.17323]: rounds a matrix column by column and moves each column's error onto the columns that
// are still free, so that the layer's output changes least. Written as LDLQ [Chee et al. 2023, arXiv:2307.13304], to which it is
// equal: H + damping = M D Mᵀ with M unit upper triangular needs no inverse.
//
//   t_j = w_j + sum_{k<j} (w_k - ŵ_k) M_kj,   ŵ_j = nearest level to t_j,   loss = sum_j D_j |t_j - ŵ_j|²
//
// Differs from the paper: grids are fitted beforehand and frozen (grids/grid.h); with `order` the columns are taken by falling
// E[x²] while groups keep their places, so no index tensor is needed. All arithmetic is fp64; the same bytes for any number of threads.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "quantization/grids/grid.h"

namespace slmc::quantization {

struct GptqSettings {
  double damping = 0.01;           // times the mean of the Gram matrix's diagonal
  bool order = true;               // columns by falling E[x²]
};

// What matrices with the same input share.
struct GptqFactor {
  at::Tensor m;                    // [n, n] fp64, unit upper triangular, in the order of `columns`
  at::Tensor d;                    // [n] fp64
  std::vector<std::int64_t> columns;
  std::int64_t dead = 0;           // inputs that never were non-zero: rounded alone, without feedback
  double damping = 0;              // what was needed
  bool escalated = false;          // more than what was asked for
};

// gram [n, n]: E[x xᵀ] of the layer's inputs. Error(Numeric) naming `what` when it holds NaN or is no Gram matrix.
GptqFactor gptq_factor(const at::Tensor& gram, const GptqSettings& settings, const std::string& what);

struct GptqResult {
  io::Quantized codes;             // of [rows, n], on the given grid
  double loss = 0;                 // tr(Δ (H + damping) Δᵀ), Δ = W - Ŵ
};

// w [rows, n] fp32.
GptqResult gptq(const at::Tensor& w, const GptqFactor& factor, const Grid& grid);

}  // namespace slmc::quantization
