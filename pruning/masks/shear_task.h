#pragma once
// Training weights and masks together: cross-entropy of the next token under drawn masks, and the penalty of the masks' constraints
// [Sheared LLaMA, arXiv:2310.06694, equation 1]. One draw for all micro-batches of an update.
#include "engine/decoder.h"
#include "engine/train/cross_entropy.h"
#include "engine/train/task.h"
#include "pruning/masks/masks.h"

namespace slmc::pruning {

class Shear : public engine::Task {
 public:
  // Both must outlive the task. ramp: share of the updates in which the targets rise.
  Shear(engine::ModelRef model, Masks& masks, double ramp, bool recompute);
  // "loss", the sum of both; "ce"; and of each kind its KindState: "ffn.sparsity", "ffn.target", "ffn.lambda", "ffn.phi".
  std::vector<std::string> terms() const override;
  std::int64_t count(const engine::Batch& batch) const override;
  void begin_step(std::int64_t step, std::int64_t steps) override;
  std::vector<double> add_gradients(const engine::Batch& batch, double scale, double progress) override;

 private:
  double ramp_at(double progress) const;

  engine::ModelRef model_;
  Masks& masks_;
  engine::CrossEntropy loss_;
  double ramp_;
  bool recompute_;
};

}  // namespace slmc::pruning
