#include "pruning/masks/masks.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "pruning/masks/hard_concrete.h"
#include "pruning/width/criterion.h"

namespace slmc::pruning {
namespace {

namespace hc = hard_concrete;

// A value whose gradient is the other way round: descent on the whole is ascent on this.
at::Tensor reversed(const at::Tensor& x) { return x.detach().mul(2) - x; }

std::int64_t entries(const Mask& m) { return m.log_alpha.size(-1); }

at::Tensor sparsity_of(const Mask& m) { return 1 - hc::open_probability(m.log_alpha).mean(-1); }      // [..]

double target_of(const Mask& m, double ramp) { return ramp * (1 - static_cast<double>(m.keep) / static_cast<double>(entries(m))); }

at::Tensor rows_of(const at::Tensor& log_alpha) { return log_alpha.detach().reshape({-1, log_alpha.size(-1)}); }

std::string part(std::int64_t block, const std::string& axis) { return fmt::format("block.{}.{}", block, axis); }

void require_less(const char* word, const std::optional<std::int64_t>& keep, std::int64_t most) {
  if (!keep || *keep <= most) return;
  throw Error(ErrorKind::Recipe, fmt::format("{} must be at most {}, what the model has, but is {}", word, most, *keep));
}

std::int64_t largest(const ir::Sizes& sizes, std::int64_t ir::BlockSizes::* axis) {
  std::int64_t most = 0;
  for (const ir::BlockSizes& b : sizes.blocks) most = std::max(most, b.*axis);
  return most;
}

void require_target(const ir::Sizes& sizes, const Target& target) {
  require_less("hidden", target.hidden, sizes.hidden);
  require_less("blocks", target.blocks, static_cast<std::int64_t>(sizes.blocks.size()));
  require_less("kv", target.kv, largest(sizes, &ir::BlockSizes::kv));
  require_less("heads", target.heads, largest(sizes, &ir::BlockSizes::q));
  require_less("ffn", target.ffn, largest(sizes, &ir::BlockSizes::ffn));
}

}  // namespace

Masks::Masks(const ir::Sizes& sizes, const Target& target, std::uint64_t seed, at::ScalarType dtype, at::Device device) : seed_(seed) {
  require_target(sizes, target);
  const auto options = at::TensorOptions(dtype).device(device);
  const auto add = [&](const char* kind, std::string gate, std::vector<std::int64_t> shape, const std::optional<std::int64_t>& keep) {
    if (!keep || shape.back() <= *keep) return;
    const at::IntArrayRef rows(shape.data(), shape.size() - 1);
    Mask m{kind, std::move(gate), *keep, at::full(shape, hc::kMost, options), at::zeros(rows, options), at::zeros(rows, options),
           at::zeros(shape, options)};
    for (at::Tensor* leaf : {&m.log_alpha, &m.lambda, &m.phi}) leaf->requires_grad_();
    masks_.push_back(std::move(m));
  };
  add("hidden", "hidden", {sizes.hidden}, target.hidden);
  add("blocks", "block", {static_cast<std::int64_t>(sizes.blocks.size())}, target.blocks);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(sizes.blocks.size()); ++i) {
    const ir::BlockSizes& b = sizes.blocks[static_cast<std::size_t>(i)];
    add("kv", part(i, "kv"), {b.kv}, target.kv);
    if (b.kv > 0) add("heads", part(i, "kv.q"), {b.kv, b.q}, target.heads);
    add("ffn", part(i, "ffn"), {b.ffn}, target.ffn);
  }
  if (masks_.empty()) {
    throw Error(ErrorKind::Recipe, "the target shape must be smaller than the model somewhere, but is its own", "for example ffn: half of what it has");
  }
  std::stable_sort(masks_.begin(), masks_.end(), [](const Mask& a, const Mask& b) {
    static const std::map<std::string, int> order = {{"hidden", 0}, {"blocks", 1}, {"kv", 2}, {"heads", 3}, {"ffn", 4}};
    return order.at(a.kind) < order.at(b.kind);
  });
}

std::vector<engine::ParameterGroup> Masks::groups(double masks, double multipliers) const {
  std::vector<engine::ParameterGroup> out{{{}, 0.0, masks}, {{}, 0.0, multipliers}};
  for (const Mask& m : masks_) {
    out[0].parameters.push_back({"masks." + m.gate, m.log_alpha});
    out[1].parameters.push_back({"masks." + m.gate + ".lambda", m.lambda});
    out[1].parameters.push_back({"masks." + m.gate + ".phi", m.phi});
  }
  return out;
}

void Masks::begin_step(std::int64_t step) {
  const at::NoGradGuard no_grad;
  for (Mask& m : masks_) {
    m.log_alpha.clamp_(hc::kLeast, hc::kMost);
    m.noise = hc::noise(Rng(derive_seed(seed_, m.gate), static_cast<std::uint64_t>(step)), m.log_alpha);
  }
}

engine::Gates Masks::drawn() const {
  engine::Gates gates;
  for (const Mask& m : masks_) gates.of[m.gate] = hc::draw(m.log_alpha, m.noise);
  return gates;
}

engine::Gates Masks::settled() const {
  engine::Gates gates;
  for (const Mask& m : masks_) gates.of[m.gate] = hc::settled(m.log_alpha.detach());
  return gates;
}

engine::Gates Masks::top() const {
  engine::Gates gates;
  for (const Mask& m : masks_) {
    const at::Tensor rows = rows_of(m.log_alpha), open = at::zeros_like(rows);
    for (std::int64_t r = 0; r < rows.size(0); ++r) {
      for (const std::int64_t i : keep_best(rows[r], m.keep)) open[r][i] = 1;
    }
    gates.of[m.gate] = open.view(m.log_alpha.sizes());
  }
  return gates;
}

at::Tensor Masks::penalty(double ramp) const {
  std::map<std::string, std::pair<at::Tensor, std::int64_t>> sums;         // of a kind: penalties, constraints
  for (const Mask& m : masks_) {
    const at::Tensor off = sparsity_of(m) - target_of(m, ramp);
    const at::Tensor sum = (reversed(m.lambda) * off + reversed(m.phi) * off.square()).sum(at::kDouble);
    auto& [all, constraints] = sums[m.kind];
    all = all.defined() ? all + sum : sum;
    constraints += off.numel();
  }
  at::Tensor total;
  for (const auto& [kind, sum] : sums) {
    const at::Tensor mean = sum.first / static_cast<double>(sum.second);
    total = total.defined() ? total + mean : mean;
  }
  return total;
}

std::vector<std::string> Masks::kinds() const {
  std::vector<std::string> out;
  for (const Mask& m : masks_) {
    if (out.empty() || out.back() != m.kind) out.push_back(m.kind);
  }
  return out;
}

ir::Plan Masks::plan(const ir::Model& model) const {
  ir::Plan plan(model);
  for (const Mask& m : masks_) {
    const at::Tensor rows = rows_of(m.log_alpha);
    if (m.kind != "heads") {
      plan.take[m.gate] = keep_best(rows[0], m.keep);
      continue;
    }
    const std::string block = m.gate.substr(0, m.gate.rfind(".q"));
    for (std::int64_t g = 0; g < rows.size(0); ++g) plan.take[fmt::format("{}.{}.q", block, g)] = keep_best(rows[g], m.keep);
  }
  return plan;
}

KindState state_of(const Masks& masks, const std::string& kind, double ramp) {
  const at::NoGradGuard no_grad;
  KindState out;
  double constraints = 0;
  for (const Mask& m : masks.all()) {
    if (m.kind != kind) continue;
    const at::Tensor sparsity = sparsity_of(m).to(at::kDouble), rows = m.lambda.detach().to(at::kDouble);
    const double n = static_cast<double>(rows.numel());
    out.sparsity += sparsity.sum().item<double>();
    out.target += n * target_of(m, ramp);
    out.lambda += rows.sum().item<double>();
    out.phi += m.phi.detach().sum(at::kDouble).item<double>();
    out.gap = std::max(out.gap, (sparsity - target_of(m, 1)).abs().max().item<double>() * static_cast<double>(entries(m)));
    constraints += n;
  }
  for (double* mean : {&out.sparsity, &out.target, &out.lambda, &out.phi}) *mean /= constraints;
  return out;
}

}  // namespace slmc::pruning
