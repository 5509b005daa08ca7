#include "pruning/depth/refit.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/moments.h"
#include "engine/solve.h"
#include "engine/stream.h"

namespace slmc::pruning {
namespace {

constexpr std::array<double, 4> kRidges = {1e-3, 1e-2, 1e-1, 1};
constexpr std::int64_t kGroup = 16;                // windows whose inner activations are in memory together

at::Tensor rows(const at::Tensor& x) { return x.flatten(0, 1); }

// What the last linear map of `part` reads, [n * seq, in]; x goes to behind the part.
at::Tensor through_part(const engine::Arch& cut, engine::Weights& weights, const Unit& part, const at::Tensor& x) {
  const std::string name = last_linear(part);
  engine::BlockSteps steps(cut, weights, part.block, x);
  while (true) {
    SLMC_CHECK(!steps.done());
    const bool found = steps.linears().front() == name;
    const at::Tensor inputs = steps.inputs();
    steps.next();
    if (found) return inputs;
  }
}

}  // namespace

std::string last_linear(const Unit& part) {
  return "block." + std::to_string(part.block) + (part.part == Part::Attention ? ".attn.o" : ".ffn.down");
}

void run_to(const engine::Arch& arch, engine::Weights& weights, at::Tensor& x, std::int64_t from, const Unit& part) {
  engine::run_windows(arch, weights, x, from, part.block);
  if (part.block == static_cast<std::int64_t>(arch.sizes.blocks.size()) || part.part == Part::Attention) return;
  engine::run_windows(without(arch, Unit{part.block, Part::FeedForward}), weights, x, part.block, part.block + 1);
}

MissingSums missing_sums(const engine::Arch& cut, engine::Weights& weights, const Unit& part, const at::Tensor& streams, const Targets& targets) {
  const std::int64_t inputs = weights.tensor(last_linear(part)).size(1);
  engine::GramSum a(inputs, streams.device());
  engine::CrossSum r(cut.sizes.hidden, inputs, streams.device());
  engine::ChannelSum size(engine::ChannelSum::Of::Square, cut.sizes.hidden, streams.device());
  for (std::int64_t first = 0; first < streams.size(0); first += kGroup) {
    cancel_point("nothing was written");
    const std::int64_t count = std::min(kGroup, streams.size(0) - first);
    const at::Tensor target = targets(first, count), own = streams.narrow(0, first, count).clone();
    at::Tensor x = through_part(cut, weights, part, own);
    const at::Tensor g = engine::reciprocal_lengths(rows(target));
    const at::Tensor missing = (rows(target) - rows(own)) * g;
    x = x * g;
    a.add(x), r.add(missing, x), size.add(missing);
  }
  return {a.mean(), r.mean(), size.mean().sum().item<double>()};
}

Refit refit(const at::Tensor& w, const MissingSums& fit, const MissingSums& held, bool linear, const std::string& name) {
  const at::Tensor a = linear ? engine::product(engine::product(w, fit.a), w.t()) : fit.a, r = linear ? engine::product(fit.r, w.t()) : fit.r;
  Refit best;
  for (const double ridge : kRidges) {
    at::Tensor delta = engine::solve_right(engine::factor(a, ridge, name + ".in"), r);
    if (linear) delta = engine::product(delta, w);
    const double explained = (2 * engine::trace_of_product(delta, held.r) - engine::output_error(delta, held.a)) / held.size;
    if (explained > best.explained) best = {delta, ridge, explained};
  }
  return best;
}

}  // namespace slmc::pruning
