#include "pruning/planner/marginal.h"

#include <algorithm>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/solve.h"
#include "engine/stream.h"
#include "engine/tensors.h"
#include "pruning/depth/judge.h"
#include "pruning/width/obs.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kStride = 4;                // every fourth position is judged

}  // namespace

std::vector<std::map<std::int64_t, double>> width_errors(const ir::Model& model, const engine::Statistics& statistics,
                                                         const std::vector<std::int64_t>& widths, stage::Events& events) {
  SLMC_CHECK(!widths.empty());
  std::vector<std::map<std::int64_t, double>> out;
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    cancel_point("nothing was written");
    const std::string map = "block." + std::to_string(i) + ".ffn.down";
    const std::int64_t all = model.sizes().blocks[static_cast<std::size_t>(i)].ffn;
    std::map<std::int64_t, double>& of = out.emplace_back();
    of[all] = 0;
    if (all > widths.front()) {
      const at::Tensor w = engine::to_tensor(model.read(map), at::kFloat), gram = statistics.at(map + ".in", engine::Statistic::Gram);
      const auto below = std::lower_bound(widths.begin(), widths.end(), all) - widths.begin();
      const ObsTrace trace = obs_trace(w, gram, all, widths.front(), below, kObsRidge, map + ".in");
      const double whole = engine::output_error(w.to(at::kDouble), gram);
      for (std::int64_t k = 0; k < below; ++k) {
        const std::int64_t width = widths[static_cast<std::size_t>(k)];
        of[width] = whole > 0 ? trace.error[static_cast<std::size_t>(all - width - 1)] / whole : 0;
      }
    }
    events.progress("blocks traced", i + 1, model.blocks());
  }
  return out;
}

std::vector<double> block_costs(const ir::Model& model, const ir::Model& cut, const at::Tensor& windows, at::Device device, stage::Events& events) {
  engine::Loaded whole = engine::load(model, at::kFloat, device);
  const engine::Arch narrow = engine::arch_of(cut);
  const Judge judge(whole.arch, whole.weights, windows, kStride);
  at::Tensor x = judge.start().clone();
  std::vector<double> out;
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    cancel_point("nothing was written");
    at::Tensor y = x.clone();
    engine::PlainWeights weights = engine::load_block(cut, i, at::kFloat, device, engine::Storage::Mapped);
    engine::run_windows(narrow, weights, y, i, i + 1);
    engine::run_windows(whole.arch, whole.weights, y, i + 1, model.blocks());
    out.push_back(std::max(0.0, judge.of(y).kl));
    engine::run_windows(whole.arch, whole.weights, x, i, i + 1);
    events.progress("blocks tried", i + 1, model.blocks());
  }
  return out;
}

}  // namespace slmc::pruning
