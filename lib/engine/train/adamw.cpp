#include "engine/train/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "engine/simd.h"

namespace slmc::engine {
namespace {

constexpr std::int64_t kTile = 65'536;

template <typename T>
SLMC_INLINE double squares(const T* x, std::int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}
SLMC_SIMD double tile_squares(const float* x, std::int64_t n) { return squares(x, n); }
SLMC_SIMD double tile_squares(const double* x, std::int64_t n) { return squares(x, n); }

template <typename T>
double tiled(const at::Tensor& x) {
  const T* data = x.const_data_ptr<T>();
  const std::int64_t n = x.numel(), tiles = (n + kTile - 1) / kTile;
  std::vector<double> sums(tiles);
  at::parallel_for(0, tiles, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) sums[i] = tile_squares(data + i * kTile, std::min(kTile, n - i * kTile));
  });
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

}  // namespace

double sum_of_squares(const at::Tensor& x) {
  if (x.device().is_cpu() && x.is_contiguous()) {
    if (x.scalar_type() == at::kFloat) return tiled<float>(x);
    if (x.scalar_type() == at::kDouble) return tiled<double>(x);
  }
  return x.to(at::kDouble).square().sum().item<double>();
}

double clip_factor(double norm, double most) { return most > 0 && norm > most ? most / norm : 1.0; }

AdamW::AdamW(std::vector<ParameterGroup> groups, const AdamWSettings& settings) : groups_(std::move(groups)), settings_(settings) {
  for (const ParameterGroup& group : groups_) {
    std::vector<Moments>& moments = moments_.emplace_back();
    for (const Parameter& p : group.parameters) {
      SLMC_CHECK(p.value.is_leaf() && p.value.requires_grad());
      const at::Tensor like = p.value.detach();
      moments.push_back({at::zeros_like(like), at::zeros_like(like)});
    }
  }
}

void AdamW::update(std::int64_t step, double rate, double factor) {
  at::NoGradGuard no_grad;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    std::vector<at::Tensor> values, gradients, m, v, steps;
    for (std::size_t i = 0; i < groups_[g].parameters.size(); ++i) {
      const at::Tensor& value = groups_[g].parameters[i].value;
      if (!value.grad().defined()) continue;
      values.push_back(value);
      gradients.push_back(value.grad());
      m.push_back(moments_[g][i].m);
      v.push_back(moments_[g][i].v);
      steps.push_back(at::full({}, static_cast<double>(step + 1), value.options().dtype(at::kFloat).requires_grad(false)));
    }
    if (values.empty()) continue;
    std::optional<at::Tensor> divisor;                     // the kernel divides gradients by it
    if (factor != 1.0) divisor = at::full({}, 1.0 / factor, values.front().options().dtype(at::kFloat).requires_grad(false));
    at::_fused_adamw_(values, gradients, m, v, {}, steps, rate * groups_[g].lr_factor, settings_.beta1, settings_.beta2,
                      groups_[g].weight_decay, settings_.eps, /*amsgrad=*/false, /*maximize=*/false, divisor, {});
    for (at::Tensor& value : values) value.mutable_grad() = at::Tensor();
  }
}

double AdamW::gradient_norm() const {
  double sum = 0;
  for (const ParameterGroup& group : groups_) {
    for (const Parameter& p : group.parameters) {
      if (p.value.grad().defined()) sum += sum_of_squares(p.value.grad());
    }
  }
  return std::sqrt(sum);
}

std::vector<Parameter> AdamW::state() const {
  std::vector<Parameter> all;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    for (std::size_t i = 0; i < groups_[g].parameters.size(); ++i) {
      const Parameter& p = groups_[g].parameters[i];
      all.push_back({p.name, p.value.detach()});
      all.push_back({p.name + ".m", moments_[g][i].m});
      all.push_back({p.name + ".v", moments_[g][i].v});
    }
  }
  return all;
}

}  // namespace slmc::engine
