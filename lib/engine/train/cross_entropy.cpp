#include "engine/train/cross_entropy.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>

#include <cmath>

#include "engine/simd.h"

namespace slmc::engine {
namespace {

// x becomes exp(x - most); returns the sum.
SLMC_INLINE double exponentials(float* x, std::int64_t n, float most) {
  double total = 0;
  for (std::int64_t first = 0; first < n; first += simd::kBlock) {
    const std::int64_t last = std::min(first + simd::kBlock, n);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = first; i < last; ++i) {
      x[i] = simd::exp_nonpositive(x[i] - most);
      sum += x[i];
    }
    total += sum;
  }
  return total;
}

SLMC_INLINE void multiply(float* x, std::int64_t n, float factor) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) x[i] *= factor;
}

// The same in ATen operators: fp64, and devices other than the CPU.
void apply_operators(at::Tensor z, const at::Tensor& target, double scale, at::Tensor sums) {
  const at::Tensor y = target.unsqueeze(1);
  const at::Tensor lse = z.logsumexp({1}, true);
  sums.add_(lse.sub(z.gather(1, y)).sum(at::kDouble));
  z.sub_(lse).exp_().scatter_add_(1, y, at::full({1}, -1.0, z.options()).expand(y.sizes())).mul_(scale);
}

}  // namespace

SLMC_SIMD double cross_entropy_row(float* z, std::int64_t vocab, std::int64_t target, float scale) {
  const float most = simd::largest(z, vocab), logit = z[target] - most;
  const double sum = exponentials(z, vocab, most);
  multiply(z, vocab, static_cast<float>(scale / sum));
  z[target] -= scale;
  return std::log(sum) - logit;
}

void CrossEntropy::apply(at::Tensor student, at::Tensor, const at::Tensor& target, double scale, at::Tensor sums) const {
  if (!student.device().is_cpu() || student.scalar_type() != at::kFloat) return apply_operators(student, target, scale, sums);
  const std::int64_t rows = student.size(0), vocab = student.size(1);
  float* z = student.data_ptr<float>();
  const std::int64_t* y = target.const_data_ptr<std::int64_t>();
  std::vector<double> losses(rows);
  at::parallel_for(0, rows, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      losses[r] = cross_entropy_row(z + r * vocab, vocab, y[r], static_cast<float>(scale));
    }
  });
  double& sum = *sums.data_ptr<double>();
  for (const double loss : losses) sum += loss;
}

}  // namespace slmc::engine
