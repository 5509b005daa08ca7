#pragma once
// Several widths that are `auto` under one or more targets: each axis alone is cut at two sizes and repaired, and the KL to the whole model on
// held-out windows gives its curve, c r^p over the share r that is removed. Of all legal shapes that keep the targets, the one with the
// least sum of curves is taken. Sums leave out what cuts do to each other: the result is a choice, not a forecast.
#include <map>
#include <string>

#include "ir/target.h"
#include "pruning/width/narrow.h"

namespace slmc::pruning {

// Loss over the removed share: through (r1, k1) and (r2, k2), 0 < r1 <= r2 < 1; the exponent is kept within 1 and 4, and is 2 where both are one.
struct Curve {
  double factor = 0, power = 2;
  static Curve through(double r1, double k1, double r2, double k2);
  double at(double share) const;
};

struct Axis {
  std::vector<std::int64_t> legal;           // ascending, the whole one last
  Curve curve;
  double loss(std::int64_t size) const;      // of ending at `size`
};

// Sizes by axis ("ffn", "kv", "q", "hidden") of the legal shape with the least sum of losses; of equal ones the first in the order of axes and
// falling sizes. `sizes`: of the model with what is fixed. Empty when none keeps the targets.
std::map<std::string, std::int64_t> best_shape(const ir::Model& model, const ir::Sizes& sizes, const std::map<std::string, Axis>& axes,
                                               const std::vector<ir::Target>& targets, const ir::Meter& meter);

// The curves of the axes `legal` names, measured; settings.widths: what is fixed, which stays whole here. windows as of narrow.
std::map<std::string, Axis> measured_axes(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings,
                                          const std::map<std::string, std::vector<std::int64_t>>& legal, stage::Events& events);

}  // namespace slmc::pruning
