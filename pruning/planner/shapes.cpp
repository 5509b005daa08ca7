#include "pruning/planner/shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "core/cancel.h"
#include "core/error.h"
#include "pruning/width/auto.h"
#include "pruning/width/measure.h"

namespace slmc::pruning {
namespace {

constexpr double kShares[] = {1.0 / 8, 1.0 / 4};         // of an axis, removed to see what it costs

double share_of(const std::vector<std::int64_t>& legal, std::int64_t size) {
  return 1 - static_cast<double>(size) / static_cast<double>(legal.back());
}

// Two legal sizes next to those shares, the same one twice where there is only one.
std::pair<std::int64_t, std::int64_t> probes(const std::vector<std::int64_t>& legal) {
  const auto nearest = [&](double share, std::size_t below) {
    std::size_t best = 0;
    for (std::size_t i = 0; i < below; ++i) {
      if (std::abs(share_of(legal, legal[i]) - share) <= std::abs(share_of(legal, legal[best]) - share)) best = i;
    }
    return best;
  };
  const std::size_t high = nearest(kShares[0], legal.size() - 1);
  return {legal[high], legal[high == 0 ? 0 : nearest(kShares[1], high)]};
}

Widths only(const std::string& axis, std::int64_t size) {
  Widths out;
  (axis == "ffn" ? out.ffn : axis == "kv" ? out.kv : axis == "q" ? out.heads : out.hidden) = size;
  return out;
}

}  // namespace

Curve Curve::through(double r1, double k1, double r2, double k2) {
  SLMC_CHECK(r1 > 0 && r2 >= r1);
  k1 = std::max(k1, 1e-9), k2 = std::max(k2, 1e-9);
  const double power = r2 > r1 ? std::clamp(std::log(k2 / k1) / std::log(r2 / r1), 1.0, 4.0) : 2;
  return {k2 / std::pow(r2, power), power};
}

double Curve::at(double share) const { return share <= 0 ? 0 : factor * std::pow(share, power); }

double Axis::loss(std::int64_t size) const { return curve.at(share_of(legal, size)); }

std::map<std::string, std::int64_t> best_shape(const ir::Model& model, const ir::Sizes& sizes, const std::map<std::string, Axis>& axes,
                                               const std::vector<ir::Target>& targets, const ir::Meter& meter) {
  std::vector<std::string> order;                       // the axis with most sizes last: the largest that fits follows from the others
  for (const auto& [name, axis] : axes) order.push_back(name);
  std::stable_sort(order.begin(), order.end(), [&](const std::string& a, const std::string& b) { return axes.at(a).legal.size() < axes.at(b).legal.size(); });
  std::map<std::string, std::int64_t> best, now;
  double least = std::numeric_limits<double>::infinity();
  const std::function<void(std::size_t, const ir::Sizes&, double)> visit = [&](std::size_t i, const ir::Sizes& at, double loss) {
    cancel_point("nothing was written");
    if (loss >= least) return;
    const Axis& axis = axes.at(order[i]);
    if (i + 1 == order.size()) {
      const auto size = ir::largest_size(model, at, order[i], axis.legal, targets, meter);
      if (!size || loss + axis.loss(*size) >= least) return;
      least = loss + axis.loss(*size);
      now[order[i]] = *size;
      best = now;
      return;
    }
    for (auto size = axis.legal.rbegin(); size != axis.legal.rend(); ++size) {
      now[order[i]] = *size;
      visit(i + 1, ir::at_most(at, order[i], *size), loss + axis.loss(*size));
    }
  };
  visit(0, sizes, 0);
  return best;
}

std::map<std::string, Axis> measured_axes(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings,
                                          const std::map<std::string, std::vector<std::int64_t>>& legal, stage::Events& events) {
  engine::Loaded whole = engine::load(model, at::kFloat, settings.device);
  const Judge judge(whole.arch, whole.weights, split(windows).held_out, 4);
  std::map<std::string, Axis> out;
  for (const auto& [name, sizes] : legal) {
    Axis& axis = out[name];
    axis.legal = sizes;
    if (sizes.size() < 2) continue;
    const auto cost = [&](std::int64_t size) {
      NarrowSettings one = settings;
      one.widths = only(name, size);
      const double kl = kl_of(ir::apply(narrow(model, windows, one, events).plan, model), judge, settings.device);
      events.note(fmt::format("{} {} of {} alone: KL {:.4f} on held-out windows", name == "q" ? "heads" : name, size, sizes.back(), kl));
      return kl;
    };
    const auto [high, low] = probes(sizes);
    const double first = cost(high), second = low == high ? first : cost(low);
    axis.curve = Curve::through(share_of(sizes, high), first, share_of(sizes, low), second);
  }
  return out;
}

}  // namespace slmc::pruning
