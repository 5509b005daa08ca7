#include "engine/train/task.h"

#include <ATen/ops/full_like.h>

namespace slmc::engine {

void Task::begin_step(std::int64_t, std::int64_t) {}

at::Tensor next_tokens(const Batch& batch) {
  const std::int64_t last = batch.ids.size(1) - 1;
  at::Tensor next = at::full_like(batch.ids, -1);
  next.narrow(1, 0, last).copy_(batch.ids.narrow(1, 1, last));
  if (batch.document.defined()) {
    const at::Tensor border = batch.document.narrow(1, 0, last).ne(batch.document.narrow(1, 1, last));
    next.narrow(1, 0, last).masked_fill_(border, -1);
  }
  return next;
}

}  // namespace slmc::engine
