#pragma once
// The hard-concrete distribution [Louizos et al. 2018, arXiv:1712.01312, section 2.2], with the constants of Sheared LLaMA [Xia et al. 2023,
// arXiv:2310.06694, appendix A, and its published code]: a number in [0, 1] that is exactly 0 or exactly 1 most of the time, and still has a
// gradient with respect to its one parameter, log alpha.
//   draw          u uniform in (e, 1 - e)       s = sigmoid((ln u - ln(1 - u) + log alpha) / T)       z = clip(s (zeta - gamma) + gamma, 0, 1)
//   P(z > 0)      sigmoid(log alpha - T ln(-gamma / zeta)), clamped to [e, 1 - e]; its sum over a mask is the expected size
//   settled       z = clip(sigmoid(0.8 log alpha / T) (zeta - gamma) + gamma, 0, 1): the mask without chance
//   e = 1e-6, gamma = -0.1, zeta = 1.1, T = 2/3
// Differs from the published code: its settled mask has no stretch and no clip, so that a kept entry stays at 0.996; the paper's has both.
#include <ATen/core/Tensor.h>

#include "core/rng.h"

namespace slmc::pruning::hard_concrete {

constexpr double kEdge = 1e-6, kGamma = -0.1, kZeta = 1.1, kTemperature = 2.0 / 3.0, kSettling = 0.8;
// log alpha is kept in [ln 0.01, ln 100], as in the published code. It starts at the upper end: the code draws N(5, 0.01^2), which this
// clamps to 4.605 before the first forward pass.
constexpr double kLeast = -4.605170185988091, kMost = 4.605170185988091;

// ln u - ln(1 - u) of the numbers first .. first + n - 1 of `rng`, as log_alpha [..] in shape, type and device.
at::Tensor noise(const Rng& rng, const at::Tensor& log_alpha);
at::Tensor draw(const at::Tensor& log_alpha, const at::Tensor& noise);         // z, as log_alpha; differentiable
at::Tensor open_probability(const at::Tensor& log_alpha);                      // P(z > 0), as log_alpha; differentiable
at::Tensor settled(const at::Tensor& log_alpha);                               // as log_alpha

}  // namespace slmc::pruning::hard_concrete
