#pragma once
// Cross-entropy of the next token in nats, summed over rows: L = sum_n (log sum_v exp z_nv - z_n,y), dL/dz = softmax(z) - onehot(y).
#include <cstdint>

#include "engine/train/head_loss.h"

namespace slmc::engine {

class CrossEntropy : public RowLoss {
 public:
  std::vector<std::string> terms() const override { return {"loss"}; }
  void apply(at::Tensor student, at::Tensor teacher, const at::Tensor& target, double scale, at::Tensor sums) const override;
};

// One row on the CPU: z [vocab] becomes scale * (softmax(z) - onehot(target)); returns the row's cross-entropy. Not finite when z holds
// NaN, +inf, or -inf at the target.
double cross_entropy_row(float* z, std::int64_t vocab, std::int64_t target, float scale);

}  // namespace slmc::engine
