#pragma once
// Least squares with Gram matrices: the closed forms behind refits, healing and GPTQ. fp64 on the CPU; the same bytes for any
// number of threads. Oracles: tests/unit/solve_test.cpp (Eigen's QR on the samples themselves).
//
// Throughout, A = E[x xᵀ] [n, n] is the Gram matrix of a layer's inputs x [n], W [out, n] its weight; then the mean squared
// change of its output is E|ΔW x|² = tr(ΔW A ΔWᵀ), exactly.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace slmc::engine {

// A + ridge * m * I = lower * lowerᵀ, where m is the mean of A's diagonal over inputs that ever were non-zero.
struct Cholesky {
  at::Tensor lower;              // [n, n] fp64
  double ridge = 0;              // what was needed, a share of m
  bool escalated = false;        // more than what was asked for
};

// Tries `ridge`, then ten times as much (at least 1e-8) up to `most`. Inputs that never were non-zero (row and column all zero)
// get a one on the diagonal: they solve to zero. Error(Numeric) naming `what` when nothing helps, or on NaN.
Cholesky factor(const at::Tensor& a, double ridge, const std::string& what, double most = 0.1);

// B (A + ridge m I)⁻¹ for B [rows, n], in blocks of rows. fp64.
at::Tensor solve_right(const Cholesky& f, const at::Tensor& b);

// W0 + R (A + ridge m I)⁻¹ with R = E[(t - W0 x) xᵀ] [out, n]: the best linear map from x to the targets t, held to W0 by the
// ridge. Centred on W0, so that R = 0 gives W0 back, bit for bit; the usual zero-centred form would shrink it.
at::Tensor centred_fit(const at::Tensor& w0, const at::Tensor& r, const Cholesky& f);

// What the kept columns K of W must become when the inputs P (all others) are removed:
//   W' = W_K + W_P A_PK (A_KK + ridge m I)⁻¹          [out, |K|] fp64
// The fixed point of the OBS chain of column removals [Hassibi & Stork 1993]. Keeping all is exactly the identity. `kept`: distinct.
at::Tensor refit_kept(const at::Tensor& w, const at::Tensor& a, const std::vector<std::int64_t>& kept, double ridge, const std::string& what);

// a b in fp64, blocks of rows on one thread each.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

// tr(X Yᵀ) of two matrices of one shape, in fp64 and in order.
double trace_of_product(const at::Tensor& x, const at::Tensor& y);

// tr(delta A deltaᵀ), delta [out, n].
double output_error(const at::Tensor& delta, const at::Tensor& a);

// E|W x - W' x_K|² / E|W x|² for W [out, n], W' [out, |K|]: what removing all but the kept inputs costs, relative. 0 when W x is 0.
double removal_error(const at::Tensor& w, const at::Tensor& a, const std::vector<std::int64_t>& kept, const at::Tensor& w_kept);

}  // namespace slmc::engine
