#pragma once
// What a width criterion may look at, and the table of criteria. A criterion is a row: what it wants measured, and functions from one
// block's weights and measurements to scores, larger = keep. Nothing else in the stage knows a criterion by name.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/rng.h"

namespace slmc::pruning {

// Scores of weights from gradients of a loss: gradients.h.
enum class GradientScore { None, Vector, Element1, Element2, Mixed, Kl };

// What a criterion wants measured besides weights. Nothing: it needs no text.
struct Wants {
  bool mean_square = false, mean = false, window_mean_abs = false, gram = false;      // of Inputs
  GradientScore gradient = GradientScore::None;
  bool inputs() const { return mean_square || mean || window_mean_abs || gram; }
  bool text() const { return inputs() || gradient != GradientScore::None; }
};

// Of what ffn.down or attn.o reads, x [n]; undefined unless asked for.
struct Inputs {
  at::Tensor mean_square;          // [n] fp64: E[x_j²]
  at::Tensor mean;                 // [n] fp64: E[x_j]
  at::Tensor window_mean_abs;      // [windows, n] fp64: mean over a window's tokens of |x_j|
  at::Tensor gram;                 // [n, n] fp64: E[x xᵀ]
};

// How the scores of the tensors that a structure runs through become one [LLM-Pruner, sec. 3.2]. First and Last: in the order of the
// data, gate up down and q k v o.
enum class Aggregate { Sum, Prod, Max, Mean, First, Last };

// The feed-forward part of one block. Channel i is row i of gate and up, column i of down.
struct FfnPart {
  at::Tensor gate, up, down;       // [ffn, hidden] [ffn, hidden] [hidden, ffn] fp32; gate undefined where there is none
  Inputs inputs;
  std::vector<at::Tensor> gradients;        // gate (where there is one), up, down: [ffn] fp64 each; Kl: one [ffn]. Empty unless asked for
  Aggregate aggregate = Aggregate::Sum;
  std::int64_t keep = 0;           // how many channels will stay: criteria that look at what goes together need it
  Rng rng;                         // of this block
};

// The attention part of one block. Group g is a run of equal length of the rows of q, k and v and of the columns of o; head (g, j) is the
// j-th part of group g's run of q and o.
struct KvPart {
  at::Tensor q, k, v, o;           // [heads * d, hidden] [kv * d, hidden] [kv * vd, hidden] [hidden, heads * vd] fp32
  Inputs inputs;
  std::vector<at::Tensor> gradients;        // q, k, v, o: fp64 along their cut side; Kl: groups [kv], heads [kv * q]. Empty unless asked for
  Aggregate aggregate = Aggregate::Sum;
  std::int64_t groups = 0, heads = 0;       // kv; query heads of a group
  std::int64_t keep = 0;           // groups that will stay, or heads of each group
  Rng rng;
};

// The residual stream. Channel c is column c of all that reads it, row c of all that writes it, entry c of the norms.
struct HiddenPart {
  std::vector<at::Tensor> norm_mean_abs;    // per norm in the blocks [windows, hidden] fp64: of its output, as Inputs::window_mean_abs
  std::vector<at::Tensor> gradients;        // per tensor with the axis hidden: [hidden] fp64
  Aggregate aggregate = Aggregate::Sum;
  std::int64_t hidden = 0;
  Rng rng;
};

// A criterion without a function has no formula for that structure.
struct Criterion {
  std::string_view name;
  Wants wants;
  at::Tensor (*ffn)(const FfnPart& part) = nullptr;           // [ffn] fp64
  at::Tensor (*kv)(const KvPart& part) = nullptr;             // [kv] fp64, whole groups
  at::Tensor (*heads)(const KvPart& part) = nullptr;          // [kv, q] fp64, query heads to compare inside their group
  at::Tensor (*hidden)(const HiddenPart& part) = nullptr;     // [hidden] fp64
};

const Criterion& criterion(std::string_view name);          // SLMC_CHECK: the settings table knows the names
const std::vector<Criterion>& criteria();

// The `count` highest scores, ascending by index; of equal scores the lower index stays. A NaN is a bug (SLMC_CHECK).
std::vector<std::int64_t> keep_best(const at::Tensor& scores, std::int64_t count);

// Row norms of w [rows, in], and norms of equal runs of rows, in fp64.
at::Tensor row_norms(const at::Tensor& w);                                   // [rows]
at::Tensor run_norms(const at::Tensor& w, std::int64_t runs);                // [runs]

}  // namespace slmc::pruning
