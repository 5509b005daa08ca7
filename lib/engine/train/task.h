#pragma once
// What is trained for, and on what. A task knows the model and the loss; the trainer (trainer.h) knows steps, rates and checkpoints;
// neither knows the other's business.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace slmc::engine {

// Some windows of tokens.
struct Batch {
  at::Tensor ids;             // [B, T] int64
  at::Tensor document;        // [B, T] int64, number of the document inside its window; or undefined
  at::Tensor label;           // [B] int64, the class of each window; undefined where windows have none
};

// Batches as a pure function of the number of their first window: resuming needs one integer.
class Batches {
 public:
  virtual ~Batches() = default;
  virtual Batch at(std::int64_t first, std::int64_t windows) const = 0;
};

class Task {
 public:
  virtual ~Task() = default;
  // What add_gradients sums; the first is the loss itself.
  virtual std::vector<std::string> terms() const = 0;
  // How many predictions of the batch count. Known without a forward pass: all micro-batches of a step share one normaliser.
  virtual std::int64_t count(const Batch& batch) const = 0;
  // Called before the micro-batches of update `step` (from 0) of `steps`; again for the same step after a checkpoint was taken up.
  virtual void begin_step(std::int64_t step, std::int64_t steps);
  // Forward and backward of one micro-batch: adds scale * d(sum of the loss over counted predictions)/d(parameter) to the gradients of
  // all parameters, and returns the sums of terms(), not scaled, never means. `progress` in [0, 1) is the share of the run that is done.
  virtual std::vector<double> add_gradients(const Batch& batch, double scale, double progress) = 0;
};

// The token that each position predicts: the next one of the same window and, where documents are known, of the same document; -1 where
// there is none. ids and document [B, T] -> [B, T] int64.
at::Tensor next_tokens(const Batch& batch);

}  // namespace slmc::engine
