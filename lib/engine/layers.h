#pragma once
// The arithmetic of a decoder block on plain tensors: no names, no weights' storage, no hooks. Everything is differentiable and
// computes in the dtype of its inputs; fp64 stays fp64 throughout, statistics of lower precisions are fp32 or better.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ir/decoder.h"

namespace slmc::engine {

// Normalises the last dimension of x [.., n] and multiplies by gain [n] (and adds bias [n], if defined).
//   Rms    x / sqrt(mean(x^2) + eps)                      [Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4]
//   Layer  (x - mean(x)) / sqrt(var(x) + eps)             [Ba et al. 2016, arXiv:1607.06450, eq. 3]
// With a gate [n] the means weigh each coordinate by gate / sum(gate): closed coordinates don't count. The result isn't gated.
at::Tensor normalize(ir::Norm kind, const at::Tensor& x, const at::Tensor& gain, const at::Tensor& bias, double eps,
                     const at::Tensor& gate = {});

// Cosines and sines of position * frequency, [tokens, freq], of `tokens` positions from `start`; angles in fp64, rounded once.
struct RopeTable {
  at::Tensor cos, sin;
};
RopeTable rope_table(const at::Tensor& frequencies, double factor, std::int64_t start, std::int64_t tokens, at::ScalarType dtype,
                     at::Device device);

// Turns the pairs (x_f, x_{freq+f}) of each head by their angles [Su et al. 2021, arXiv:2104.09864, eq. 34, half-split order]; entries
// from 2 * freq on pass. x [B, T, heads, d].
at::Tensor rotate(const at::Tensor& x, const RopeTable& table);

at::Tensor activate(ir::Activation kind, const at::Tensor& x);
at::Tensor gated_activation(ir::Activation kind, const at::Tensor& gate, const at::Tensor& up);   // act(gate) * up

// Which keys a query sees. Query i of T stands at position S - T + i of S.
struct Sight {
  std::int64_t queries = 0, keys = 0;
  std::optional<std::int64_t> window;      // keys at most window - 1 positions back
  at::Tensor document;                     // [B, T] int64 or undefined, numbers that never fall; then queries == keys
};
// The first key that each query sees, [B or 1, T] int64; undefined when that is key 0 for all. Only where queries == keys.
at::Tensor first_keys(const Sight& sight);
// [B or 1, 1, T, S]: 0 where visible, -inf elsewhere; undefined when plain causal attention says the same.
at::Tensor attention_mask(const Sight& sight, at::ScalarType dtype, at::Device device);

// What attend needs of a sight; made once and shared by blocks.
class Visible {
 public:
  Visible() = default;
  explicit Visible(Sight sight);
  const Sight& sight() const { return sight_; }
  const at::Tensor& first() const { return first_; }
  at::Tensor mask(const at::Tensor& like) const;      // made when first asked for

 private:
  Sight sight_;
  at::Tensor first_;
  mutable std::optional<at::Tensor> mask_;
};

// softmax(scale * q k^T + mask) v for each head. q [B, T, heads, d], k [B, S, kv, d], v [B, S, kv, vd] -> [B, T, heads, vd]; head h
// reads group h / (heads / kv). Probabilities are never stored.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, const Visible& visible);

}  // namespace slmc::engine
