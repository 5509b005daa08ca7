#pragma once
// Distillation of a decoder from another with the same tokens: forward KL of the teacher's next-token distribution, mixed with
// cross-entropy. The teacher runs in the same process, without gradients, one micro-batch at a time.
#include "distillation/losses/forward_kl.h"
#include "engine/decoder.h"
#include "engine/train/task.h"

namespace slmc::distillation {

class Distill : public engine::Task {
 public:
  // What both refer to must outlive the task.
  Distill(engine::ModelRef student, engine::ModelRef teacher, const ForwardKlSettings& loss, bool recompute);
  std::vector<std::string> terms() const override { return loss_.terms(); }
  std::int64_t count(const engine::Batch& batch) const override;
  std::vector<double> add_gradients(const engine::Batch& batch, double scale, double progress) override;

 private:
  at::Tensor teacher_states(const engine::Batch& batch) const;

  engine::ModelRef student_;
  engine::ModelRef teacher_;
  ForwardKl loss_;
  bool recompute_;
};

}  // namespace slmc::distillation
