#pragma once
// What the tests of training share: random tensors from a seed, and differences.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include <cmath>

namespace slmc::testing {

// Normal with the given standard deviation; logits of real models have one of 2 to 4.
inline at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed, double deviation = 1.0, at::ScalarType type = at::kFloat) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kDouble)).mul_(deviation).to(type);
}

inline at::Tensor integers(std::int64_t below, at::IntArrayRef shape, std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randint(below, shape, generator, at::TensorOptions(at::kLong));
}

inline double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == 0 ? 0.0 : a.to(at::kDouble).sub(b.to(at::kDouble)).abs().max().item<double>();
}

// max |a - b| / max |b|
inline double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  return max_difference(a, b) / std::max(1e-300, b.to(at::kDouble).abs().max().item<double>());
}

}  // namespace slmc::testing
