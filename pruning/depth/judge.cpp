#include "pruning/depth/judge.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include "core/cancel.h"
#include "engine/stream.h"

namespace slmc::pruning {

Distance mean_of(const std::vector<Distance>& windows) {
  Distance sum;
  for (const Distance& d : windows) sum.kl += d.kl, sum.loss += d.loss, sum.loss_whole += d.loss_whole;
  const auto count = static_cast<double>(windows.size());
  return {sum.kl / count, sum.loss / count, sum.loss_whole / count};
}

Judge::Judge(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, std::int64_t stride)
    : arch_(arch), weights_(weights), head_(engine::head_of(arch, weights)) {
  const at::NoGradGuard no_grad;
  const std::int64_t n = windows.size(0), seq = windows.size(1);
  positions_ = at::arange(std::min(stride, seq - 1) - 1, seq - 1, stride, at::kLong);
  targets_ = windows.index_select(1, positions_.add(1)).contiguous();
  start_ = engine::embed_windows(arch, weights, windows, weights.tensor("norm").device());
  at::Tensor x = start_.clone();
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(arch.sizes.blocks.size()); ++i) {
    cancel_point("nothing was written");
    engine::run_windows(arch, weights, x, i, i + 1);
  }
  whole_ = at::empty({n, positions_.numel(), arch.sizes.hidden}, x.options());
  engine::for_windows(n, start_.device(), [&](std::int64_t i) { whole_[i].copy_(judged(x.narrow(0, i, 1))); });
}

at::Tensor Judge::judged(const at::Tensor& window) const {
  return engine::final_norm(arch_, weights_, window[0].index_select(0, positions_.to(window.device())));
}

std::vector<Distance> Judge::each(const at::Tensor& x, std::int64_t first) const {
  std::vector<Distance> out(static_cast<std::size_t>(x.size(0)));
  engine::for_windows(x.size(0), start_.device(), [&](std::int64_t i) {
    const engine::Comparison c = engine::compare(head_, whole_[first + i], head_, judged(x.narrow(0, i, 1)), targets_[first + i]);
    out[static_cast<std::size_t>(i)] = {c.kl.mean().item<double>(), -c.log_prob_q.mean().item<double>(), -c.log_prob_p.mean().item<double>()};
  });
  return out;
}

}  // namespace slmc::pruning
