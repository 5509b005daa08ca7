#pragma once
// Training a decoder on the next token of its text: cross-entropy, and what every task on a decoder's logits shares.
#include "engine/decoder.h"
#include "engine/train/cross_entropy.h"
#include "engine/train/task.h"

namespace slmc::engine {

class NextToken : public Task {
 public:
  // What `model` refers to must outlive the task. recompute: block inputs are kept for backward, everything else is computed again.
  NextToken(ModelRef model, bool recompute) : model_(model), recompute_(recompute) {}
  std::vector<std::string> terms() const override { return loss_.terms(); }
  std::int64_t count(const Batch& batch) const override;
  std::vector<double> add_gradients(const Batch& batch, double scale, double progress) override;

 private:
  ModelRef model_;
  bool recompute_;
  CrossEntropy loss_;
};

// How many positions of a batch predict a token.
std::int64_t predictions(const Batch& batch);

// Last hidden states [B, T, hidden] of a batch, for training.
at::Tensor training_states(const ModelRef& model, const Batch& batch, bool recompute, const Gates* gates = nullptr);

}  // namespace slmc::engine
