#pragma once
// Scores of weights from the gradients of a loss on calibration text, block by block from the last one to the first.
//
// LLM-Pruner [Ma et al. 2023, arXiv:2305.11627, eq. 3 to 5]: L = next-token cross-entropy; g = the mean over windows of dL/dw, F = the mean
// of their squares, standing for the Hessian's diagonal. Per row or column of a tensor, sums over its weights:
//   Vector    |sum w g|            Element2   sum w² F
//   Element1  sum |w g|            Mixed      sum |w g - w² F / 2|          the paper's eq. 5 in full
// Kl: the rise of KL(whole || cut) to second order. Its value and gradient vanish where nothing is cut; what is left is the Fisher
// information of a structure's gate a [Theis et al. 2018, arXiv:1801.05787, eq. 6, with labels from the model in place of the text's, for
// then it is the Hessian of the KL]:
//   Kl        1/2 E[(d log p(y) / da)²],   y ~ p, in nats per token
// One label is drawn for each position; the mean is over windows, whose derivative is the sum over positions.
//
// Memory: the stream of all windows at 2 sqrt(blocks) places, one block's weights and gradients, and as many of one window as there are
// threads. Every window is computed on one thread, sums are taken in order: the same bytes for any number of threads.
#include <ATen/core/Tensor.h>

#include <vector>

#include "ir/model.h"
#include "pruning/width/criterion.h"
#include "stage/job.h"

namespace slmc::pruning {

struct BlockGradients {
  std::vector<at::Tensor> ffn;       // as FfnPart::gradients; empty without a feed-forward part
  std::vector<at::Tensor> attention; // as KvPart::gradients; empty without attention
};

struct GradientScores {
  std::vector<BlockGradients> blocks;
  std::vector<at::Tensor> hidden;    // as HiddenPart::gradients; empty unless asked for
};

// windows [n, seq] int64. `hidden`: scores of the residual stream too, which needs the gradient of embedding and head; for Vector,
// Element1 and Kl only. Error(Interrupted) between blocks when asked to stop, Error(Numeric) when the loss is not finite.
GradientScores gradient_scores(const ir::Model& model, const at::Tensor& windows, GradientScore what, bool hidden, std::uint64_t seed,
                               at::Device device, stage::Events& events);

// w, g, f [out, in] (f only where the formula reads it) -> [out] when `rows`, else [in]; fp64.
at::Tensor tensor_scores(GradientScore what, const at::Tensor& w, const at::Tensor& g, const at::Tensor& f, bool rows);

}  // namespace slmc::pruning
