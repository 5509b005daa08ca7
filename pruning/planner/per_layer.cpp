#include "pruning/planner/per_layer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "pruning/planner/allocate.h"
#include "pruning/planner/marginal.h"
#include "pruning/width/auto.h"
#include "pruning/width/measure.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kTried = 8;                 // windows that each block is tried on, at most

ir::Sizes uniform_at(const ir::Model& model, std::int64_t width) { return ir::at_most(model.sizes(), "ffn", width); }

std::int64_t widest(const ir::Model& model) {
  std::int64_t most = 0;
  for (const ir::BlockSizes& b : model.sizes().blocks) most = std::max(most, b.ffn);
  return most;
}

// Costs and losses of every block at every width that it may have.
std::vector<std::vector<Option>> options_of(const ir::Model& model, const std::vector<std::int64_t>& widths, const std::vector<std::map<std::int64_t, double>>& errors,
                                            const std::vector<double>& kappa, const ir::Target& target, const ir::Meter& meter) {
  std::vector<std::vector<Option>> out(static_cast<std::size_t>(model.blocks()));
  for (const std::int64_t width : widths) {
    const std::vector<std::int64_t> costs = ir::cost_by_block(target.measure, ir::resized(model, uniform_at(model, width)), meter);
    for (std::size_t b = 0; b < out.size(); ++b) {
      const std::int64_t own = std::min(width, model.sizes().blocks[b].ffn);
      if (!out[b].empty() && out[b].back().size == own) continue;
      out[b].push_back({own, costs[b], kappa[b] * errors[b].at(own)});
    }
  }
  return out;
}

ir::Sizes with_widths(const ir::Model& model, const std::vector<std::int64_t>& widths) {
  ir::Sizes sizes = model.sizes();
  for (std::size_t b = 0; b < widths.size(); ++b) sizes.blocks[b].ffn = widths[b];
  return sizes;
}

// Block costs leave out what the whole file adds (the origin's text): where the assembled model is dearer, the bound is tightened by that much.
std::vector<std::int64_t> solve(const ir::Model& model, const std::vector<std::vector<Option>>& options, std::int64_t outside, const ir::Target& target,
                                const ir::Meter& meter) {
  std::int64_t most = target.most - outside;
  for (int attempt = 0; attempt < 8; ++attempt) {
    const auto chosen = allocate(options, most);
    if (!chosen) break;
    std::vector<std::int64_t> widths;
    for (std::size_t b = 0; b < options.size(); ++b) widths.push_back(options[b][(*chosen)[b]].size);
    const std::int64_t over = ir::cost_in(target.measure, ir::resized(model, with_widths(model, widths)), meter) - target.most;
    if (over <= 0) return widths;
    most -= over;
  }
  return {};
}

// Cuts the model to `widths` too and keeps them if their KL on `verify_on` is less than that of out.narrowed, the uniform ones.
void choose(PerLayer& out, const ir::Model& model, const at::Tensor& windows, NarrowSettings settings, const std::vector<std::int64_t>& widths,
            const at::Tensor& verify_on, stage::Events& events) {
  const std::int64_t uniform = *settings.widths.ffn;
  engine::Loaded whole = engine::load(model, at::kFloat, settings.device);
  const Judge judge(whole.arch, whole.weights, verify_on, 1);
  out.kl_uniform = kl_of(ir::apply(out.narrowed.plan, model), judge, settings.device);
  out.kl_per_layer = std::numeric_limits<double>::infinity();
  if (widths.empty() || std::all_of(widths.begin(), widths.end(), [&](std::int64_t w) { return w == uniform; })) return;
  events.note(fmt::format("widths by block: {}", fmt::join(widths, " ")));
  settings.widths.ffn_of_block = widths;
  Narrowed narrowed = narrow(model, windows, settings, events);
  out.kl_per_layer = kl_of(ir::apply(narrowed.plan, model), judge, settings.device);
  events.note(fmt::format("held-out KL: {:.4f} with these, {:.4f} with {} everywhere", out.kl_per_layer, out.kl_uniform, uniform));
  if (!(out.kl_per_layer < out.kl_uniform)) return;
  out.widths = widths;
  out.narrowed = std::move(narrowed);
}

}  // namespace

std::vector<std::int64_t> block_widths(const ir::Model& model, std::int64_t align) {
  const std::int64_t all = widest(model);
  std::vector<std::int64_t> out;
  for (std::int64_t w = (std::max(all / 4, align) + align - 1) / align * align; w < all; w += align) out.push_back(w);
  out.push_back(all);
  return out;
}

PerLayer per_layer(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings, std::int64_t align,
                   const ir::Target& target, const ir::Meter& meter, stage::Events& events) {
  const std::int64_t uniform = *settings.widths.ffn;
  const std::vector<std::int64_t> widths = block_widths(model, align);
  const at::Tensor held = split(windows).held_out;
  const std::int64_t n = held.size(0), tries = std::min(kTried, std::max<std::int64_t>(1, n / 2));
  const at::Tensor try_on = held.narrow(0, 0, tries), verify_on = n > tries ? held.narrow(0, tries, n - tries) : held;

  NarrowSettings dense = settings;                 // the widths are chosen behind it; a repair in sequence is for the winner alone, as it costs passes
  if (dense.repair == Repair::Sequential) dense.repair = Repair::Dense;
  PerLayer out{.narrowed = narrow(model, windows, dense, events)};
  out.tried = block_costs(model, ir::apply(out.narrowed.plan, model), try_on, settings.device, events);
  const Measured measured = measure(model, windows, settings.widths, {.wants = {.gram = true}, .grams = true}, settings.device, settings.cache, events);
  std::vector<std::int64_t> all = widths;
  if (!std::binary_search(all.begin(), all.end(), uniform)) all.insert(std::lower_bound(all.begin(), all.end(), uniform), uniform);
  const std::vector<std::map<std::int64_t, double>> errors = width_errors(model, measured.fit, all, events);
  std::vector<double> kappa;
  for (std::size_t b = 0; b < errors.size(); ++b) {
    const std::int64_t own = std::min(uniform, model.sizes().blocks[b].ffn);
    const double e = errors[b].at(own);
    kappa.push_back(e > 0 ? out.tried[b] / e : 0);
  }
  const std::vector<std::vector<Option>> options = options_of(model, all, errors, kappa, target, meter);
  const ir::Model whole_uniform = ir::resized(model, uniform_at(model, uniform));
  std::int64_t outside = ir::cost_in(target.measure, whole_uniform, meter);
  for (const std::int64_t c : ir::cost_by_block(target.measure, whole_uniform, meter)) outside -= c;
  const std::vector<std::int64_t> widths_by_block = solve(model, options, outside, target, meter);
  choose(out, model, windows, dense, widths_by_block, verify_on, events);
  if (settings.repair == dense.repair) return out;
  NarrowSettings best = settings;
  best.widths.ffn_of_block = out.widths;
  out.narrowed = narrow(model, windows, best, events);
  return out;
}

}  // namespace slmc::pruning
