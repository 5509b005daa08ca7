#include "pruning/depth/unexplained.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/moments.h"
#include "engine/solve.h"
#include "engine/stream.h"

namespace slmc::pruning {
namespace {

constexpr std::array<double, 4> kRidges = {1e-3, 1e-2, 1e-1, 1};
constexpr std::int64_t kRows = 8192;               // weighted copies in memory together

// Some windows on their way through the model.
struct Walk {
  at::Tensor x;                                    // [n, seq, hidden], the input of the next block
  at::Tensor last;                                 // [n * seq, in], what the last linear map before x read; undefined at the front
  at::Tensor before, middle, attention;            // of the block just run: its input, the stream behind attention, what attn.o read
};

struct Sums {
  at::Tensor a, r;                                 // A [in, in], R [hidden, in]; undefined: nothing before
  double size = 0;                                 // E|g (y - x)|²
};

Sums sums(const at::Tensor& x, const at::Tensor& y, const at::Tensor& inputs) {
  const at::Tensor from = x.flatten(0, 1), to = y.flatten(0, 1);
  const std::int64_t rows = to.size(0), hidden = to.size(1), in = inputs.defined() ? inputs.size(1) : 1;
  engine::GramSum a(in, to.device());
  engine::CrossSum r(hidden, in, to.device());
  engine::ChannelSum size(engine::ChannelSum::Of::Square, hidden, to.device());
  for (std::int64_t first = 0; first < rows; first += kRows) {
    const std::int64_t count = std::min(kRows, rows - first);
    const at::Tensor there = to.narrow(0, first, count), length = there.norm(2, {1}, true);
    const at::Tensor g = at::where(length > 0, length.reciprocal(), at::zeros_like(length));
    const at::Tensor done = (there - from.narrow(0, first, count)) * g;
    size.add(done);
    if (!inputs.defined()) continue;
    const at::Tensor weighted = inputs.narrow(0, first, count) * g;
    a.add(weighted), r.add(done, weighted);
  }
  Sums out{.size = size.mean().sum().item<double>()};
  if (inputs.defined()) out.a = a.mean(), out.r = r.mean();
  return out;
}

double left_of(const Sums& fit, const Sums& held, const Unit& unit) {
  if (!std::isfinite(fit.size) || !std::isfinite(held.size)) {
    throw Error(ErrorKind::Numeric, "the activations around " + to_string(unit) + " must be finite, but are not", "`slmc verify` looks at the weights");
  }
  double left = held.size;
  if (!fit.a.defined()) return left;
  for (const double ridge : kRidges) {
    const at::Tensor delta = engine::solve_right(engine::factor(fit.a, ridge, "the inputs before " + to_string(unit)), fit.r);
    left = std::min(left, held.size - 2 * engine::trace_of_product(delta, held.r) + engine::output_error(delta, held.a));
  }
  return left;
}

void run_block(const engine::Arch& arch, engine::Weights& weights, std::int64_t block, bool parts, Walk& walk) {
  walk.before = walk.x.clone();
  if (parts) {
    walk.middle = walk.x.clone();
    engine::run_windows(without(arch, Unit{block, Part::FeedForward}), weights, walk.middle, block, block + 1);
  }
  walk.attention = walk.last;
  engine::BlockSteps steps(arch, weights, block, walk.x);
  at::Tensor last = walk.last;
  for (; !steps.done(); steps.next()) {
    const std::string name = steps.linears().front();
    if (name.ends_with(".attn.o")) walk.attention = last = steps.inputs();
    if (name.ends_with(".ffn.down")) last = steps.inputs();
  }
  walk.last = last;
}

}  // namespace

std::vector<double> unexplained(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, const at::Tensor& held_out,
                                const std::vector<Unit>& units) {
  const at::Device device = weights.tensor("norm").device();
  std::array<Walk, 2> walks = {Walk{.x = engine::embed_windows(arch, weights, windows, device)},
                               Walk{.x = engine::embed_windows(arch, weights, held_out, device)}};
  const bool parts = std::any_of(units.begin(), units.end(), [](const Unit& u) { return u.part != Part::Block; });
  std::vector<double> out;
  for (std::int64_t i = 0; out.size() < units.size(); ++i) {
    cancel_point("nothing was written");
    std::array<at::Tensor, 2> ahead = {walks[0].last, walks[1].last};
    for (Walk& walk : walks) run_block(arch, weights, i, parts, walk);
    for (std::size_t u = out.size(); u < units.size() && units[u].block == i; ++u) {
      std::array<Sums, 2> found;
      for (std::size_t w = 0; w < 2; ++w) {
        const Walk& walk = walks[w];
        const bool second = units[u].part == Part::FeedForward;
        found[w] = sums(second ? walk.middle : walk.before, units[u].part == Part::Attention ? walk.middle : walk.x, second ? walk.attention : ahead[w]);
      }
      out.push_back(left_of(found[0], found[1], units[u]));
    }
  }
  return out;
}

}  // namespace slmc::pruning
