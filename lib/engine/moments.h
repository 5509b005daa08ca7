#pragma once
// Sums over the rows of activations that arrive in batches: Gram matrices, cross moments, sums per channel. fp32 products of fixed
// tiles over fixed runs of rows, folded into fp64 in order: the same bytes for any number of threads.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace slmc::engine {

// sum y xᵀ over rows: y [rows, m], x [rows, n] -> [m, n] fp64.
class CrossSum {
 public:
  CrossSum(std::int64_t m, std::int64_t n, at::Device device);
  void add(const at::Tensor& y, const at::Tensor& x);
  std::int64_t rows() const { return rows_; }
  at::Tensor mean() const;                     // divided by rows, on the CPU

 private:
  std::int64_t rows_ = 0;
  at::Tensor sum_;
};

// sum x xᵀ over rows: the upper tiles are computed, the lower ones mirrored.
class GramSum {
 public:
  GramSum(std::int64_t n, at::Device device);
  void add(const at::Tensor& x);               // [rows, n]
  std::int64_t rows() const { return rows_; }
  at::Tensor mean() const;                     // E[x xᵀ], symmetric, on the CPU

 private:
  std::int64_t rows_ = 0;
  at::Tensor sum_;
};

// Per channel, of |x|, x, x² and max |x|: whichever is asked for.
class ChannelSum {
 public:
  enum class Of { Value, Abs, Square, MaxAbs };
  ChannelSum(Of of, std::int64_t n, at::Device device);
  void add(const at::Tensor& x);               // [rows, n]
  at::Tensor mean() const;                     // [n] fp64; MaxAbs: the maximum

 private:
  Of of_;
  std::int64_t rows_ = 0;
  at::Tensor sum_;
};

// Mean over rows of cos(x_r, y_r). Rows of zeros count as 1 when both are zero, else 0.
class CosineSum {
 public:
  void add(const at::Tensor& x, const at::Tensor& y);   // [rows, n] each
  double mean() const { return rows_ ? sum_ / static_cast<double>(rows_) : 1.0; }      // NaN when a row held NaN

 private:
  std::int64_t rows_ = 0;
  double sum_ = 0;
};

// 1 / |row|, 0 for a row of zeros: x [rows, n] -> [rows, 1]. The weights of tokens in fits onto the residual stream, which the next norm divides
// by its length.
at::Tensor reciprocal_lengths(const at::Tensor& x);

}  // namespace slmc::engine
