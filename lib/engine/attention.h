#pragma once
// Causal attention with gradients on plain arrays, for CPUs with AVX-512: scores of a few rows at a time stay in the cache, nothing of size
// [T, T] exists, and keys that no row of a block may see cost nothing [Dao et al. 2022, arXiv:2205.14135; here with whole rows, so that
// softmax needs no running maximum]. On SmolLM2's shape (4 x 512 tokens, 9 heads of 64) forward and backward take 0.6 of the time of
// at::scaled_dot_product_attention (tests/bench/bench_forward.cpp).
//
//   rows of a block = 48 / heads-per-group positions x the heads of one group, so that keys and values are read once per group
//   S = scale Q K^T    P = exp(S - lse)    O = P V
//   dV = P^T dO        dS = P (dO V^T - rowsum(dO O))        dQ = scale dS K        dK = scale dS^T Q
//
// The same bits for any number of threads: tasks and sums over them follow from the shape.
#include <cstdint>

namespace slmc::engine {

struct AttentionShape {
  std::int64_t batch = 0, tokens = 0;
  std::int64_t heads = 0, groups = 0;            // query heads; key/value groups: divides heads
  std::int64_t d = 0, vd = 0;                    // entries of a query and of a value
  double scale = 1.0;
};

// AVX-512 is there, and d and vd are multiples of 16.
bool attention_supported(const AttentionShape& shape);

// q [batch, tokens, heads, d], k [.., groups, d], v [.., groups, vd], contiguous. first [batch, tokens]: the first key that a query sees,
// 0 <= first <= its own position, never falling along a window; null = 0. Writes out [.., heads, vd] and lse [batch, heads, tokens], the
// log of each row's softmax denominator.
void attention_forward(const AttentionShape& shape, const float* q, const float* k, const float* v, const std::int64_t* first, float* out,
                       float* lse);

// Gradients for d_out, shaped as their values; all are written, not added to.
void attention_backward(const AttentionShape& shape, const float* q, const float* k, const float* v, const std::int64_t* first,
                        const float* out, const float* lse, const float* d_out, float* d_q, float* d_k, float* d_v);

}  // namespace slmc::engine
