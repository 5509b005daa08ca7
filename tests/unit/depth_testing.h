#pragma once
// Small models for the depth tests, cuts of them by block numbers, and the sums of a repair in fp64.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <map>

#include "engine/stream.h"
#include "methods_testing.h"
#include "pruning/depth/judge.h"
#include "pruning/depth/search.h"

namespace slmc::testing_depth {

using namespace pruning;
using testing_methods::random_model;
using testing_methods::random_windows;

// A model with its weights in memory and calibration windows.
struct Case {
  ir::Model model;
  engine::Arch arch;
  engine::PlainWeights weights;
  at::Tensor windows;
  explicit Case(std::int64_t blocks, double block_size = 0.5)
      : model(random_model({.hidden = 16, .blocks = blocks, .kv = 2, .q = 2, .ffn = 32, .block_size = block_size})),
        arch(engine::arch_of(model)), weights(model, at::kFloat, at::kCPU), windows(random_windows(model, 12, 20, 3)) {}

  // Blocks by number.
  engine::Arch cut(const std::vector<std::int64_t>& removed) const {
    engine::Arch out = arch;
    for (const std::int64_t block : removed) out = pruning::without(std::move(out), Unit{block, Part::Block});
    return out;
  }

  // Stream behind the last block of a cut.
  at::Tensor behind(const engine::Arch& cut_arch, const Judge& judge) {
    at::Tensor x = judge.start().clone();
    engine::run_windows(cut_arch, weights, x, 0, model.blocks());
    return x;
  }
  at::Tensor without(const std::vector<std::int64_t>& removed, const Judge& judge) { return behind(cut(removed), judge); }
};

inline std::vector<Unit> blocks(const std::vector<std::int64_t>& numbers) {
  std::vector<Unit> out;
  for (const std::int64_t i : numbers) out.push_back({i, Part::Block});
  return out;
}

inline std::vector<Unit> units_in(const std::vector<Removal>& removed) {
  std::vector<Unit> out;
  for (const Removal& r : removed) out.push_back(r.unit);
  std::sort(out.begin(), out.end());
  return out;
}

// A, R and W (depth/heal.h) of the feed-forward part of block `before`, behind which the blocks up to `last` are gone, from the decoder's taps in fp64.
struct Moments {
  at::Tensor a, r, w;
  double size = 0;
};
inline Moments moments_of(Case& c, const at::Tensor& text, const std::vector<std::int64_t>& removed, std::int64_t before, std::int64_t last,
                          const std::map<std::string, at::Tensor>& changed) {
  const at::NoGradGuard no_grad;
  engine::PlainWeights weights(c.model, at::kDouble, at::kCPU), cut = weights;
  for (const auto& [name, w] : changed) cut.all()[name] = w.to(at::kDouble);
  struct Inputs : engine::Tap {
    std::string site;
    at::Tensor a;
    bool wants(const std::string& s) const override { return s == site; }
    void see(const std::string&, const at::Tensor& v) override { a = v.flatten(0, 1).clone(); }
  } tap;
  tap.site = "block." + std::to_string(before) + ".ffn.down.in";
  const at::Tensor x = engine::embed(c.arch, weights, text);
  const at::Tensor t = engine::run_blocks(c.arch, weights, x, 0, last + 1).flatten(0, 1);
  at::Tensor y = engine::run_blocks(c.cut(removed), cut, x, 0, before);
  y = engine::run_blocks(c.cut(removed), cut, y, before, before + 1, {.tap = &tap}).flatten(0, 1);
  const at::Tensor g = 1 / t.pow(2).sum(-1, true).sqrt(), a = tap.a * g, missing = (t - y) * g;
  const double n = static_cast<double>(a.size(0));
  return {at::mm(a.t(), a) / n, at::mm(missing.t(), a) / n, cut.tensor("block." + std::to_string(before) + ".ffn.down"), missing.pow(2).sum().item<double>() / n};
}

inline at::Tensor ridged(const at::Tensor& a, double ridge) { return a + at::eye(a.size(0), at::kDouble) * (ridge * a.diagonal().mean().item<double>()); }

}  // namespace slmc::testing_depth
