#pragma once
// What is wanted of logits, without logits: tiles of [rows, columns] of the vocabulary exist one at a time, never [tokens, vocab].
// Forward only; losses with gradients are in the training parts. All sums over the vocabulary are accumulated in fp64.
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "engine/decoder.h"

namespace slmc::engine {

// The last linear map of one model.
struct Head {
  at::Tensor weight;                  // [vocab, hidden]
  at::Tensor log_gate;                // [vocab], added to logits, or undefined
  std::int64_t vocab() const { return weight.size(0); }
};
Head head_of(const Arch& arch, Weights& weights, const Pass& pass = {});

// normed: rows behind the last norm (hidden_states), [N, hidden]. targets [N] int64; results are on the CPU.
at::Tensor target_log_probs(const Head& head, const at::Tensor& normed, const at::Tensor& targets);     // ln p(target), [N] F64
at::Tensor likeliest(const Head& head, const at::Tensor& normed);                                       // arg-max, the first of equals, [N] int64

// Two models over the same rows; p is the reference.
struct Comparison {
  at::Tensor kl;                      // KL(p || q) in nats, [N] F64
  at::Tensor same_top;                // both have the same arg-max, [N] bool
  at::Tensor log_prob_p, log_prob_q;  // ln of the targets' probabilities, [N] F64
};
// Error(Usage) when the vocabularies differ.
Comparison compare(const Head& p, const at::Tensor& normed_p, const Head& q, const at::Tensor& normed_q, const at::Tensor& targets);

}  // namespace slmc::engine
