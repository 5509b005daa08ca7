#include "pruning/masks/hard_concrete.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sigmoid.h>

#include <cmath>

namespace slmc::pruning::hard_concrete {
namespace {

at::Tensor stretched(const at::Tensor& s) { return s.mul(kZeta - kGamma).add(kGamma).clamp(0, 1); }

}  // namespace

at::Tensor noise(const Rng& rng, const at::Tensor& log_alpha) {
  at::Tensor out = at::empty(log_alpha.sizes(), at::kDouble);
  double* to = out.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < out.numel(); ++i) {
    const double u = kEdge + (1 - 2 * kEdge) * rng.uniform(static_cast<std::uint64_t>(i));
    to[i] = std::log(u) - std::log1p(-u);
  }
  return out.to(log_alpha.device(), log_alpha.scalar_type());
}

at::Tensor draw(const at::Tensor& log_alpha, const at::Tensor& noise) { return stretched(at::sigmoid((log_alpha + noise) / kTemperature)); }

at::Tensor open_probability(const at::Tensor& log_alpha) {
  return at::sigmoid(log_alpha - kTemperature * std::log(-kGamma / kZeta)).clamp(kEdge, 1 - kEdge);
}

at::Tensor settled(const at::Tensor& log_alpha) { return stretched(at::sigmoid(log_alpha.mul(kSettling / kTemperature))); }

}  // namespace slmc::pruning::hard_concrete
