#pragma once
// Running softmax sums of one row of logits whose columns arrive tile by tile, so that a row never exists whole. Plain C++ on floats:
// vector code without intrinsics, the same bytes on every CPU and for any number of threads. head.cpp is the user.
#include <cstdint>
#include <limits>

namespace slmc::engine {

struct RowSum {                                  // of logits z seen so far
  float most = -std::numeric_limits<float>::infinity();
  std::int64_t at = 0;                           // first column that holds `most`
  double sum = 0;                                // sum of exp(z - most)
  double log_sum_exp() const;                    // ln sum exp(z); -inf for an empty or wholly closed row
};

// Adds z[0 .. n), which are columns `first` and following.
void add_columns(RowSum& row, const float* z, std::int64_t n, std::int64_t first);

struct RowDivergence {                           // of p = softmax(z_p) from q = softmax(z_q), same columns
  RowSum p, q;
  double gap = 0;                                // sum of exp(z_p - p.most) (z_p - z_q)
  // KL(p || q) = sum p (log p - log q) in nats. Infinite when q closes what p opens.
  double kl() const;
};
void add_columns(RowDivergence& row, const float* z_p, const float* z_q, std::int64_t n, std::int64_t first);

}  // namespace slmc::engine
