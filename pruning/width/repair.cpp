#include "pruning/width/repair.h"

#include "core/cancel.h"
#include "core/error.h"
#include "engine/statistics.h"
#include "pruning/stored.h"

namespace slmc::pruning {

void keep(Repaired& out, const Refitted& refitted, const ir::Model& model) {
  const std::string& map = refitted.map.name;
  out.maps.push_back(refitted.map);
  if (refitted.now.weight.defined()) out.values[map] = stored_data(refitted.now.weight, *model.find(map));
  if (refitted.now.bias.defined()) out.values[map + ".bias"] = stored_data(refitted.now.bias, *model.find(map + ".bias"));
}

Repaired repair_from_statistics(const ir::Model& model, const ir::Plan& plan, const Measured& measured, bool only_bias, stage::Events& events) {
  using engine::Statistic;
  const Targets targets(model, plan);
  Repaired out;
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    cancel_point("nothing was written");
    for (const std::string& map : changed_maps(model, plan, i)) {
      const Affine whole = targets.of(map);
      const std::vector<std::int64_t> kept = kept_inputs(model, plan, map);
      if (static_cast<std::int64_t>(kept.size()) == whole.weight.size(1)) continue;
      const std::string site = input_site(map);
      const auto missing = [&](const auto& of_cut, const engine::Statistics& s) {
        const at::Tensor means = whole.bias.defined() ? s.at(site, Statistic::Mean) : at::Tensor();
        return of_cut(whole.weight, s.at(site, Statistic::Gram), means, kept);
      };
      const Affine from{columns_of(whole.weight, kept), whole.bias};
      const ir::TensorSpec* bias = model.find(map + ".bias");
      const Missing fit = missing(missing_of_cut, measured.fit), held = missing(held_out_of_cut, measured.held_out);
      if (only_bias && !bias) continue;
      keep(out, only_bias ? refit_bias(from, fit, held, *model.find(map), *bias) : refit(from, fit, held, *model.find(map), bias), model);
    }
    events.progress("blocks refitted", i + 1, model.blocks());
  }
  return out;
}

}  // namespace slmc::pruning
