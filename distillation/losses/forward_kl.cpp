#include "distillation/losses/forward_kl.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "core/error.h"
#include "engine/simd.h"

namespace slmc::distillation {
namespace {

namespace simd = engine::simd;

struct Weights {              // of one row's gradient, 1 / N included
  double tau, kl, ce;         // kl = a, ce = 1 - a, both times scale
};
struct RowTerms {
  double kl = 0, ce = 0;      // kl without tau^2
};
struct Sums {
  double z = 0, t = 0, cross = 0;   // sum exp z', sum exp t', sum exp(t') (t' - z'), over shifted and tempered logits
  double kl() const { return std::max(cross / t - std::log(t) + std::log(z), 0.0); }
};

// Temperature 1 and equal vocabularies: one exponential per logit. z and t become exp(z - most_z) and exp(t - most_t).
SLMC_INLINE Sums fused_sums(float* z, float* t, std::int64_t n, float most_z, float most_t) {
  Sums sums;
  for (std::int64_t first = 0; first < n; first += simd::kBlock) {
    const std::int64_t last = std::min(first + simd::kBlock, n);
    float sum_z = 0, sum_t = 0, cross = 0;
#pragma omp simd reduction(+ : sum_z, sum_t, cross)
    for (std::int64_t i = first; i < last; ++i) {
      const float a = z[i] - most_z, b = t[i] - most_t;
      z[i] = simd::exp_nonpositive(a);
      t[i] = simd::exp_nonpositive(b);
      sum_z += z[i];
      sum_t += t[i];
      cross += t[i] > 0.0f ? t[i] * (b - a) : t[i];
    }
    sums.z += sum_z;
    sums.t += sum_t;
    sums.cross += cross;
  }
  return sums;
}

SLMC_INLINE void fused_gradient(float* z, const float* t, std::int64_t n, float factor_z, float factor_t) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) z[i] = z[i] * factor_z - t[i] * factor_t;
}

// Any temperature. z stays, t becomes exp((t - most_t) / tau).
SLMC_INLINE Sums tempered_sums(const float* z, float* t, std::int64_t n, float most_z, float most_t, float rate) {
  Sums sums;
  for (std::int64_t first = 0; first < n; first += simd::kBlock) {
    const std::int64_t last = std::min(first + simd::kBlock, n);
    float sum_z = 0, sum_t = 0, cross = 0;
#pragma omp simd reduction(+ : sum_z, sum_t, cross)
    for (std::int64_t i = first; i < last; ++i) {
      const float a = (z[i] - most_z) * rate, b = (t[i] - most_t) * rate;
      t[i] = simd::exp_nonpositive(b);
      sum_z += simd::exp_nonpositive(a);
      sum_t += t[i];
      cross += t[i] > 0.0f ? t[i] * (b - a) : t[i];
    }
    sums.z += sum_z;
    sums.t += sum_t;
    sums.cross += cross;
  }
  return sums;
}

// z[0, shared) becomes ce exp(z - most) + kl_z exp((z - most_shared) / tau) - kl_t t, the rest ce exp(z - most).
struct Factors {
  float most, ce, most_shared, rate, kl_z, kl_t;
};
SLMC_INLINE void tempered_gradient(float* z, const float* t, std::int64_t n, std::int64_t shared, const Factors& f) {
  const Factors g = f;
#pragma omp simd
  for (std::int64_t i = 0; i < shared; ++i) {
    z[i] = g.ce * simd::exp_nonpositive(z[i] - g.most) +
           (g.kl_z * simd::exp_nonpositive((z[i] - g.most_shared) * g.rate) - g.kl_t * t[i]);
  }
#pragma omp simd
  for (std::int64_t i = shared; i < n; ++i) z[i] = g.ce * simd::exp_nonpositive(z[i] - g.most);
}

// z [n] and t [shared or more] logits; z becomes the gradient.
SLMC_SIMD RowTerms fused_row(float* z, float* t, std::int64_t n, std::int64_t target, const Weights& w) {
  const float most_z = simd::largest(z, n), logit = z[target] - most_z;
  const Sums sums = fused_sums(z, t, n, most_z, simd::largest(t, n));
  fused_gradient(z, t, n, static_cast<float>((w.kl + w.ce) / sums.z), static_cast<float>(w.kl / sums.t));
  z[target] -= static_cast<float>(w.ce);
  return {sums.kl(), std::log(sums.z) - logit};
}

SLMC_SIMD RowTerms tempered_row(float* z, float* t, std::int64_t n, std::int64_t shared, std::int64_t target, const Weights& w) {
  const float most = simd::largest(z, n), logit = z[target] - most, most_shared = simd::largest(z, shared), rate = static_cast<float>(1.0 / w.tau);
  const double sum = simd::exponential_sum(z, n, most);
  const Sums sums = tempered_sums(z, t, shared, most_shared, simd::largest(t, shared), rate);
  tempered_gradient(z, t, n, shared,
                    {most, static_cast<float>(w.ce / sum), most_shared, rate, static_cast<float>(w.kl * w.tau / sums.z),
                     static_cast<float>(w.kl * w.tau / sums.t)});
  z[target] -= static_cast<float>(w.ce);
  return {sums.kl(), std::log(sum) - logit};
}

// The definition in ATen operators: fp64, devices other than the CPU, and the oracle of the fast path.
void apply_operators(at::Tensor z, const at::Tensor& t, const at::Tensor& target, const Weights& w, double a, at::Tensor sums) {
  const std::int64_t shared = std::min(z.size(1), t.size(1));
  const at::Tensor y = target.unsqueeze(1);
  const at::Tensor log_q = z.narrow(1, 0, shared).div(w.tau).log_softmax(1), log_p = t.narrow(1, 0, shared).div(w.tau).log_softmax(1);
  const at::Tensor p = log_p.exp();
  const at::Tensor kl = at::where(p.gt(0), p.mul(log_p.sub(log_q)), at::zeros_like(p)).sum(1).clamp_min(0).sum(at::kDouble).mul(w.tau * w.tau);
  const at::Tensor lse = z.logsumexp({1}, true);
  const at::Tensor ce = lse.sub(z.gather(1, y)).sum(at::kDouble);
  sums.add_(at::stack({kl.mul(a).add(ce.mul(1 - a)), kl, ce}));
  z.sub_(lse).exp_().scatter_add_(1, y, at::full({1}, -1.0, z.options()).expand(y.sizes())).mul_(w.ce);
  z.narrow(1, 0, shared).add_(log_q.exp().sub_(p), w.kl * w.tau);
}

}  // namespace

ForwardKl::ForwardKl(const ForwardKlSettings& settings) : settings_(settings) {
  SLMC_CHECK(settings.temperature > 0 && settings.kl_weight >= 0 && settings.kl_weight <= 1);
}

void ForwardKl::apply(at::Tensor student, at::Tensor teacher, const at::Tensor& target, double scale, at::Tensor sums) const {
  const double a = settings_.kl_weight, tau = settings_.temperature;
  const Weights w{tau, a * scale, (1 - a) * scale};
  if (!student.device().is_cpu() || student.scalar_type() != at::kFloat) {
    return apply_operators(student, teacher, target, w, a, sums);
  }
  const std::int64_t rows = student.size(0), vocab = student.size(1), teacher_vocab = teacher.size(1);
  const bool fused = tau == 1.0 && vocab == teacher_vocab;
  float* z = student.data_ptr<float>();
  float* t = teacher.data_ptr<float>();
  const std::int64_t* y = target.const_data_ptr<std::int64_t>();
  std::vector<RowTerms> terms(rows);
  at::parallel_for(0, rows, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      float *student_row = z + r * vocab, *teacher_row = t + r * teacher_vocab;
      terms[r] = fused ? fused_row(student_row, teacher_row, vocab, y[r], w)
                       : tempered_row(student_row, teacher_row, vocab, std::min(vocab, teacher_vocab), y[r], w);
    }
  });
  double kl = 0, ce = 0;
  for (const RowTerms& row : terms) {
    kl += row.kl;
    ce += row.ce;
  }
  double* out = sums.data_ptr<double>();
  out[0] += a * tau * tau * kl + (1 - a) * ce;
  out[1] += tau * tau * kl;
  out[2] += ce;
}

}  // namespace slmc::distillation
