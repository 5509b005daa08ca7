#pragma once
// How much parts of a model turn its residual stream: what Block Influence and angular distance rank by. One forward pass without a head.
#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/decoder.h"
#include "pruning/depth/units.h"

namespace slmc::pruning {

// 1 - mean cosine of the rows of x and y, both [n, seq, hidden]: Block Influence [Men et al. 2024, arXiv:2403.03853, eq. 1] when they are a
// unit's input and output. Error(Numeric) naming the unit when activations overflow.
double influence_of(const at::Tensor& x, const at::Tensor& y, const Unit& unit);

// By unit, or by first block of a run, a value of every window: searches rank by their means, resamples (resample.h) by other means.
using ByWindow = std::vector<std::vector<double>>;
std::vector<double> means(const ByWindow& values);

// x [n, seq, hidden] through one block, in place; gives how much each of `units`, all of this block, turns the stream.
ByWindow run_block(const engine::Arch& arch, engine::Weights& weights, std::int64_t block, const std::vector<Unit>& units, at::Tensor& x);

// Of windows [n, seq], for each unit.
ByWindow influences(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, const std::vector<Unit>& units);

// d(l, n) = E[arccos cos(x_l, x_{l+n})] / pi for l = 0 .. blocks - n, where x_l is the input of block l (x_blocks: what leaves the last):
// how far the run of n blocks from l on turns the stream [Gromov et al. 2024, arXiv:2403.17887, eq. 7]. Over all positions, or over the last
// one of each window, as the paper has it.
ByWindow angular_distances(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, std::int64_t n, bool last_token);

}  // namespace slmc::pruning
