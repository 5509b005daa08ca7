#pragma once
// `criterion: auto`: no criterion is best for every model, ratio and text, so a few are tried and the model itself decides. Each cuts and
// repairs the model as it will be cut; the least KL(whole || cut) on windows that none of them saw wins.
#include <string>
#include <vector>

#include "pruning/depth/judge.h"
#include "pruning/width/narrow.h"

namespace slmc::pruning {

struct Tried {
  std::string criterion;
  double kl = 0;               // mean over positions of the held-out windows, nats
};

// One of each kind of evidence, cheap ones first; only such as have formulas for all that `widths` narrows.
std::vector<std::string> candidates(const Widths& widths);

// Tries all on windows [n, seq] but the last quarter, which judges; in the order of `names`. Error(Usage) with fewer than two windows.
std::vector<Tried> try_criteria(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings,
                                const std::vector<std::string>& names, stage::Events& events);

// KL(whole || cut) of a whole model narrowed inside its blocks or along the stream, block by block; infinity where it is not finite.
double kl_of(const ir::Model& cut, const Judge& judge, at::Device device);

// The first of the least KL.
const Tried& winner(const std::vector<Tried>& tried);

}  // namespace slmc::pruning
