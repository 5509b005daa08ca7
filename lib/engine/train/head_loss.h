#pragma once
// The linear head and the loss in one step. Logits of all tokens never exist: a chunk of rows goes through the head, its loss and its
// gradient are made at once, and only d hidden and d head are kept. Used by every task that trains on logits.
//
//   rows of hidden [N, D] -- chunk [C, D] -- Z = H W^T [C, V] -- RowLoss: sums, G = dL/dZ in place of Z
//                                              |                         |
//                            teacher logits [C, V_T]                     dH = G W,  dW += G^T H
//
// Extra memory: C x V for Z, C x V_T with a teacher, and dW. Backward only scales dH and dW by the incoming number.
// (H1) the result does not depend on the chunk size, beyond rounding   (H2) rows with target -1 give no loss and no gradient
// (H3) a frozen head costs no dW product; frozen hidden states no dH   (H4) asking for second derivatives is an error, never zero
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace slmc::engine {

// A loss that treats each row of logits by itself.
class RowLoss {
 public:
  virtual ~RowLoss() = default;
  // What it sums, for reports. The first is the loss itself, the others its parts: {"loss", "kl", "ce"}.
  virtual std::vector<std::string> terms() const = 0;
  // Replaces student [C, V] (contiguous fp32 or fp64 logits) by scale * d(sum of losses)/d(logits), and adds the rows' terms to
  // sums [terms] fp64 (same device). teacher [C, V_T] has the student's dtype, may be overwritten, and is undefined when there is
  // no teacher. target [C] int64 in [0, V).
  virtual void apply(at::Tensor student, at::Tensor teacher, const at::Tensor& target, double scale, at::Tensor sums) const = 0;
};

// Where teacher logits come from, a chunk at a time.
struct TeacherLogits {
  std::int64_t vocab = 0;
  // Fills out [C, vocab] with the logits of the given rows [C] int64 of the hidden states that head_loss was called with.
  std::function<void(const at::Tensor& rows, at::Tensor out)> fill;
};
// Teacher with its own last hidden states [.., D_T] (same rows as the student's) and head [V_T, D_T], cut to the first `vocab` rows.
TeacherLogits teacher_head(const at::Tensor& hidden, const at::Tensor& head, std::int64_t vocab);

struct HeadLoss {
  at::Tensor loss;            // scalar fp64, scale * sums[0]; call backward on it, alone or inside a larger sum
  std::vector<double> sums;   // of RowLoss::terms() over the counted rows, not scaled
  std::int64_t rows = 0;      // counted rows
};

struct HeadLossInput {
  at::Tensor hidden;          // [.., D]
  at::Tensor head;            // [V, D], same dtype; the embedding itself when tied: autograd then adds both gradients
  at::Tensor target;          // [..] int64: the token that each row predicts; -1 leaves the row out
  const TeacherLogits* teacher = nullptr;
  double scale = 1.0;         // 1 / (counted rows of the whole optimiser step)
  std::int64_t chunk = 0;     // rows; 0 = chunk_rows(V)
};

// Error(Numeric) when the loss is not finite; Error(Data) when a target is not a row of the head.
HeadLoss head_loss(const HeadLossInput& input, const RowLoss& loss);

// clamp(96 MiB / (4 V), 32, 512): with few rows the product that makes logits spends its time on arranging the head's weights.
std::int64_t chunk_rows(std::int64_t vocab);

}  // namespace slmc::engine
