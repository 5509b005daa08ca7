#include "pruning/width/auto.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "engine/stream.h"
#include "pruning/depth/judge.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kJudgesShare = 4;           // one window of four judges
constexpr std::int64_t kStride = 4;                // every fourth position is judged

}  // namespace

double kl_of(const ir::Model& cut, const Judge& judge, at::Device device) {
  const engine::Arch arch = engine::arch_of(cut);
  at::Tensor x = judge.start().clone();
  for (std::int64_t i = 0; i < cut.blocks(); ++i) {
    engine::PlainWeights weights = engine::load_block(cut, i, at::kFloat, device, engine::Storage::Mapped);
    engine::run_windows(arch, weights, x, i, i + 1);
  }
  const double kl = judge.of(x).kl;
  return std::isfinite(kl) ? kl : std::numeric_limits<double>::infinity();
}

std::vector<std::string> candidates(const Widths& widths) {
  std::vector<std::string> out;
  for (const char* name : {"wanda", "minitron", "flap", "obs", "taylor-element1"}) {
    const Criterion& c = criterion(name);
    if ((!widths.ffn || c.ffn) && (!widths.kv || c.kv) && (!widths.heads || c.heads) && (!widths.hidden || c.hidden)) out.emplace_back(name);
  }
  return out;
}

std::vector<Tried> try_criteria(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings,
                                const std::vector<std::string>& names, stage::Events& events) {
  const std::int64_t n = windows.size(0), judges = std::max<std::int64_t>(1, n / kJudgesShare);
  if (n < 2) throw Error(ErrorKind::Usage, "criterion auto must have at least 2 calibration windows, but has " + std::to_string(n), "raise samples of data.calib");
  engine::Loaded whole = engine::load(model, at::kFloat, settings.device);
  const Judge judge(whole.arch, whole.weights, windows.narrow(0, n - judges, judges), kStride);
  std::vector<Tried> out;
  for (const std::string& name : names) {
    NarrowSettings one = settings;
    one.criterion = name;
    const Narrowed narrowed = narrow(model, windows.narrow(0, 0, n - judges), one, events);
    out.push_back({name, kl_of(ir::apply(narrowed.plan, model), judge, settings.device)});
    events.note(fmt::format("criterion {}: KL {:.4f} on held-out windows", name, out.back().kl));
  }
  return out;
}

const Tried& winner(const std::vector<Tried>& tried) {
  SLMC_CHECK(!tried.empty());
  return *std::min_element(tried.begin(), tried.end(), [](const Tried& a, const Tried& b) { return a.kl < b.kl; });
}

}  // namespace slmc::pruning
