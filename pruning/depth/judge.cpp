#include "pruning/depth/judge.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cmath>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/moments.h"
#include "engine/stream.h"

namespace slmc::pruning {

double influence_of(const at::Tensor& before, const at::Tensor& after, std::int64_t block) {
  engine::CosineSum cosines;
  cosines.add(before.flatten(0, 1), after.flatten(0, 1));
  const double influence = 1 - cosines.mean();
  if (std::isfinite(influence)) return influence;
  throw Error(ErrorKind::Numeric, fmt::format("the activations around block {} must be finite, but are not", block), "`slmc verify` looks at the weights");
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
    const at::Tensor before = x.clone();
    engine::run_windows(arch, weights, x, i, i + 1);
    influence_.push_back(influence_of(before, x, i));
  }
  whole_ = at::empty({n, positions_.numel(), arch.sizes.hidden}, x.options());
  engine::for_windows(n, start_.device(), [&](std::int64_t i) { whole_[i].copy_(judged(x.narrow(0, i, 1))); });
}

at::Tensor Judge::judged(const at::Tensor& window) const {
  return engine::final_norm(arch_, weights_, window[0].index_select(0, positions_.to(window.device())));
}

Distance Judge::of(const at::Tensor& x) const {
  const std::int64_t n = x.size(0);
  std::vector<Distance> each(static_cast<std::size_t>(n));
  engine::for_windows(n, start_.device(), [&](std::int64_t i) {
    const engine::Comparison c = engine::compare(head_, whole_[i], head_, judged(x.narrow(0, i, 1)), targets_[i]);
    each[static_cast<std::size_t>(i)] = {c.kl.mean().item<double>(), -c.log_prob_q.mean().item<double>(), -c.log_prob_p.mean().item<double>()};
  });
  Distance mean;
  for (const Distance& d : each) mean.kl += d.kl, mean.loss += d.loss, mean.loss_whole += d.loss_whole;
  const auto count = static_cast<double>(n);
  return {mean.kl / count, mean.loss / count, mean.loss_whole / count};
}

}  // namespace slmc::pruning
