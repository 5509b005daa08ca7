#include "distillation/distill_task.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "engine/train/head_loss.h"
#include "engine/train/next_token.h"

namespace slmc::distillation {

Distill::Distill(engine::ModelRef student, engine::ModelRef teacher, const ForwardKlSettings& loss, bool recompute)
    : student_(student), teacher_(teacher), loss_(loss), recompute_(recompute) {}

std::int64_t Distill::count(const engine::Batch& batch) const { return engine::predictions(batch); }

at::Tensor Distill::teacher_states(const engine::Batch& batch) const {
  const at::NoGradGuard no_grad;
  return engine::training_states(teacher_, batch, false);
}

std::vector<double> Distill::add_gradients(const engine::Batch& batch, double scale, double) {
  const at::Tensor head = engine::head_weight(student_.arch, student_.weights);
  const at::Tensor teacher_head = engine::head_weight(teacher_.arch, teacher_.weights);
  const engine::TeacherLogits teacher =
      engine::teacher_head(teacher_states(batch), teacher_head, std::min(head.size(0), teacher_head.size(0)));
  const at::Tensor hidden = engine::training_states(student_, batch, recompute_);
  const engine::HeadLoss out = engine::head_loss(
      {.hidden = hidden, .head = head, .target = engine::next_tokens(batch), .teacher = &teacher, .scale = scale}, loss_);
  out.loss.backward();
  return out.sums;
}

}  // namespace slmc::distillation
