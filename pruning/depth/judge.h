#pragma once
// How far a changed model's predictions are from the whole model's on a few windows: mean KL and log-likelihood at some positions.
// Needs only the residual stream behind the changed model's last block; head and last norm are the whole model's.
#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/decoder.h"
#include "engine/head.h"

namespace slmc::pruning {

struct Distance {
  double kl = 0;                   // mean over positions of KL(whole || changed), nats
  double loss = 0;                 // mean -ln p(next token) of the changed model
  double loss_whole = 0;           // of the whole model
};

Distance mean_of(const std::vector<Distance>& windows);

class Judge {
 public:
  // Runs the whole model over windows [n, seq] once. Every `stride`-th position is judged: the head costs as much as many blocks.
  Judge(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, std::int64_t stride);
  // x [n, seq, hidden] behind the last block. The same bytes for any number of threads.
  Distance of(const at::Tensor& x) const { return mean_of(each(x, 0)); }
  // Of the windows first .. first + x.size(0) - 1, one by one.
  std::vector<Distance> each(const at::Tensor& x, std::int64_t first) const;
  std::int64_t windows() const { return start_.size(0); }
  const at::Tensor& start() const { return start_; }        // token embeddings, [n, seq, hidden]

 private:
  at::Tensor judged(const at::Tensor& window) const;        // [1, seq, hidden] -> [positions, hidden], normed

  const engine::Arch& arch_;
  engine::Weights& weights_;
  engine::Head head_;
  at::Tensor positions_, targets_;                          // [positions]; [n, positions] int64
  at::Tensor start_, whole_;                                // [n, seq, hidden]; [n, positions, hidden] normed
};

}  // namespace slmc::pruning
