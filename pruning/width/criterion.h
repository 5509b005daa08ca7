#pragma once
// What a width criterion may look at, and the table of criteria. A criterion is a pair of functions from one block's weights and
// statistics to scores, larger = keep; nothing else in the stage knows a criterion by name.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/rng.h"

namespace slmc::pruning {

// The feed-forward part of one block. Channel i is row i of gate and up, column i of down.
struct FfnPart {
  at::Tensor gate, up, down;       // [ffn, hidden] [ffn, hidden] [hidden, ffn] fp32; gate undefined where there is none
  at::Tensor mean_square;          // [ffn] fp64: E[a_i²] of what down reads; undefined unless asked for
  Rng rng;                         // of this block
};

// The attention part of one block. Group g is a run of equal length of the rows of q, k and v and of the columns of o.
struct KvPart {
  at::Tensor q, k, v, o;           // [heads * d, hidden] [kv * d, hidden] [kv * vd, hidden] [hidden, heads * vd] fp32
  at::Tensor mean_square;          // [heads * vd] fp64: E[z_j²] of what o reads; undefined unless asked for
  std::int64_t groups = 0;
  Rng rng;
};

struct Criterion {
  std::string_view name;
  bool needs_inputs;                                        // mean_square
  at::Tensor (*ffn)(const FfnPart& part);                   // [ffn] fp64
  at::Tensor (*kv)(const KvPart& part);                     // [kv] fp64
};

const Criterion& criterion(std::string_view name);          // SLMC_CHECK: the settings table knows the names

// The `count` highest scores, ascending by index; of equal scores the lower index stays. A NaN is a bug (SLMC_CHECK).
std::vector<std::int64_t> keep_best(const at::Tensor& scores, std::int64_t count);

// Row norms of w [rows, in], and norms of equal runs of rows, in fp64.
at::Tensor row_norms(const at::Tensor& w);                                   // [rows]
at::Tensor run_norms(const at::Tensor& w, std::int64_t runs);                // [runs]

}  // namespace slmc::pruning
